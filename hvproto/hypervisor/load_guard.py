"""Loads of segment registers by a guest kernel: which of them the processor at ring 3 may do by itself.

In the kernel view every descriptor has DPL 3, so the processor finds any RPL right; by the guest's own descriptors it
may be too high. Each load there is trapped, and let go on where nothing is wrong with it, which costs a tenth of an
exit. It must not fault then: of an instruction with a hook on it, the engine would have wrong flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.segments import RPL_MASK, TABLE_INDICATOR
from hvproto.processor.unasked import MOV_SEGMENT, POP_DS, POP_ES, POP_FS, POP_GS, TWO_BYTES

if TYPE_CHECKING:
    from hvproto.hypervisor.address_space import AddressSpace
    from hvproto.hypervisor.virtual_cpu import VirtualCpu
    from hvproto.processor.processor import Processor

LOADS = frozenset({MOV_SEGMENT, POP_ES, POP_DS, TWO_BYTES})
"""The first bytes of the instructions that it knows."""
_OPERAND_SIZE = b"\x66"
_REGISTER_OPERAND = 0xC0
_SS = 2


class LoadGuard:
    """Of one guest. What isn't MOV from a register or POP is left to emulation."""

    def __init__(self, cpu: VirtualCpu, space: AddressSpace, processor: Processor, ram: memoryview) -> None:
        self._cpu = cpu
        self._space = space
        self._processor = processor
        self._ram = ram
        self.passed = 0
        """The last selector that passed."""

    def passes(self, eip: int) -> bool:
        """Whether the instruction at this GVA, where the guest kernel is, is a load that can go on as it is."""
        code = self._bytes(eip, 3)
        selector = self._selector(code[1:] if code[:1] == _OPERAND_SIZE else code)
        if selector is None or selector & TABLE_INDICATOR:
            return False
        if selector & ~RPL_MASK:
            level = max(self._cpu.cpl, selector & RPL_MASK)
            if level > self._space.descriptors.level_of(selector >> 3):
                return False
        self.passed = selector
        return True

    def _selector(self, code: bytes) -> int | None:
        """What is about to be loaded; None if that isn't at hand, or the load is another one."""
        if len(code) < 2:
            return None
        first, second = code[:2]
        if first == MOV_SEGMENT and second >= _REGISTER_OPERAND and second >> 3 & 7 != _SS:
            return self._processor.gpr(second & 7) & 0xFFFF
        if first in (POP_ES, POP_DS) or (first == TWO_BYTES and second in (POP_FS, POP_GS)):
            stack = self._cpu.stack
            if not self._cpu.code64 and (stack.base or not stack.is_32bit):
                return None
            top = self._bytes(self._processor.esp, 8)
            return int.from_bytes(top[:2], "little") if len(top) == 8 else None
        return None

    def _bytes(self, linear: int, size: int) -> bytes:
        """Bytes of the guest's memory that it may read now without any effect; none if they aren't at hand."""
        at = self._space.place(linear, size, self._space.present_view)
        return b"" if at is None else bytes(self._ram[at : at + size])
