"""IN and OUT of a guest's kernel answered in the engine's run: what `port_io` does, where IOPL allows it outright.

What a device asks for - a stop, an earlier deadline - ends the run before the next instruction, as between two runs.
Prefixes other than that of the operand's size, and strings but for the REP INSD and REP OUTSD that move a sector within
a page at hand, are left to `Exits`. So a character at COM1, its share of the way to the host included, takes some 20 us
instead of 140.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.hypervisor.port_io import ECX, EDI, EDX, ESI, PATIENCE
from hvproto.processor.engine import GPR_IDS
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_DF

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest
    from hvproto.processor.native import NativeEngine

_OPERAND_SIZE = 0x66
_BY_BYTE = {0xE4: False, 0xE5: False, 0xE6: True, 0xE7: True}
_BY_DX = {0xEC: False, 0xED: False, 0xEE: True, 0xEF: True}
"""Whether it is OUT; the low bit of the opcode is set if the operand is wider than a byte."""
_STRINGS = {b"\xf3\x6d": (EDI, SegmentRegister.ES), b"\xf3\x6f": (ESI, SegmentRegister.DS)}
"""REP INSD and REP OUTSD: the register with the address, and the segment."""
RAX, RDX = GPR_IDS[0], GPR_IDS[2]
LONGEST, STRING = 3, 2
_WORD = 4
_WHOLE = 0xFFFF_FFFF


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

    def string(self, code: bytes, eflags: int) -> bool:
        """Execute the instruction of `STRING` bytes that these are; False, and nothing done, if that isn't here.

        ``eflags`` has the guest's DF.
        """
        known = _STRINGS.get(code[:STRING])
        if known is None or self.is_16_bit or eflags & EFLAGS_DF:
            return False
        register, segment = known
        engine, guest, space = self._engine, self._guest, self._guest.space
        count, place, port = (engine.read_register(GPR_IDS[number]) & _WHOLE for number in (ECX, register, EDX))
        size = count * _WORD
        if not 1 < count <= PATIENCE or guest.machine.processor.segment(segment).base:
            return False
        is_input = register == EDI
        at = space.place(place, size, space.present_view, write=is_input)
        if at is None:
            return False
        ram = guest.machine.ram.view
        if is_input:
            ram[at : at + size] = guest.read_many(port & 0xFFFF, _WORD, count)
        else:
            guest.write_many(port & 0xFFFF, _WORD, bytes(ram[at : at + size]))
        engine.write_register(GPR_IDS[ECX], 0)
        engine.write_register(GPR_IDS[register], place + size & _WHOLE)
        return True
