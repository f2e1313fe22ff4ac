"""IN and OUT of a guest's kernel answered in the engine's run: what `port_io` does, where IOPL allows it outright.

What a device asks for - a stop, an earlier deadline - ends the run before the next instruction, as between two runs.
Strings and prefixes other than that of the operand's size are left to `Exits`. So a character at
COM1, its share of the way to the host included, takes some 20 us instead of 140.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.engine import GPR_IDS

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest
    from hvproto.processor.native import NativeEngine

_OPERAND_SIZE = 0x66
_BY_BYTE = {0xE4: False, 0xE5: False, 0xE6: True, 0xE7: True}
_BY_DX = {0xEC: False, 0xED: False, 0xEE: True, 0xEF: True}
"""Whether it is OUT; the low bit of the opcode is set if the operand is wider than a byte."""
RAX, RDX = GPR_IDS[0], GPR_IDS[2]
LONGEST = 3


class QuickPorts:
    """Of one guest."""

    def __init__(self, guest: MirroredGuest, engine: NativeEngine) -> None:
        self._guest = guest
        self._engine = engine
        self.is_16_bit = False
        """What the code segment says of operands."""

    def answer(self, code: bytes) -> int:
        """Execute what begins with these bytes (`LONGEST`); its length, or 0 with nothing done."""
        opcode, length, is_16_bit = code[0], 1, self.is_16_bit
        if opcode == _OPERAND_SIZE:
            opcode, length, is_16_bit = code[1], 2, not is_16_bit
        engine = self._engine
        is_output = _BY_DX.get(opcode)
        if is_output is not None:
            port = engine.read_register(RDX) & 0xFFFF
        else:
            is_output = _BY_BYTE.get(opcode)
            if is_output is None:
                return 0
            port = code[length]
            length += 1
        size = 1 if not opcode & 1 else 2 if is_16_bit else 4
        mask = (1 << 8 * size) - 1
        rax = engine.read_register(RAX)
        if is_output:
            self._guest.write(port, size, rax & mask)
        else:
            value = self._guest.read(port, size) & mask
            engine.write_register(RAX, value if size == 4 else rax & ~mask | value)
        return length
