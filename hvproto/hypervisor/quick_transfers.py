"""INT n of a guest reflected, and the IRET that ends its handler, without taking the guest's state over and back.

Between a program and its kernel in flat 32-bit segments nothing changes but CS, SS, the stack pointer, EIP, flags and
the view. What the processor holds on either side is known from the last time that a guest was set down there in full
(`resuming`), until a descriptor changes. What isn't exactly that - another gate, another stack segment, a page not at
hand, NT or TF, data segments that the return would close - is left to `Exits`, with nothing done.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import capstone

from hvproto.hypervisor.sensitive import CodeKind
from hvproto.hypervisor.virtual_cpu import VIRTUAL_FLAGS
from hvproto.processor.engine import EFLAGS_ID
from hvproto.processor.first_look import FirstLook
from hvproto.processor.segments import RPL_MASK, TABLE_INDICATOR, Segment, SegmentRegister
from hvproto.processor.settings import (
    EFER_LMA,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    Setting,
)

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest
    from hvproto.processor.native import NativeEngine

_GATE_SIZE = 8
_PRESENT_386_GATE, _GATE_BITS, _TRAP_GATE, _GATE_DPL_SHIFT = 0x8E, 0x9E, 1, 5
_STACK_IN_TSS = 4
_INNER, _OUTER = struct.Struct("<3I"), struct.Struct("<5I")
_WHOLE = 0xFFFF_FFFF
_ODD = EFLAGS_TF | EFLAGS_NT | EFLAGS_VM | EFLAGS_RF | EFLAGS_VIF | EFLAGS_VIP
_RETURNABLE = 0x0024_7FD7 & ~_ODD
"""What IRET at ring 0 takes from the stack: the flags of POPF, AC, ID, IF and IOPL."""
_DATA = (SegmentRegister.ES, SegmentRegister.DS, SegmentRegister.FS, SegmentRegister.GS)
_SEGMENT_SIZE = 24


@dataclass(frozen=True, slots=True)
class _Side:
    """What the processor holds while the guest is at one level."""

    code: Segment
    stack: Segment
    real_code: Segment
    real_stack: Segment
    raw: bytes
    kind: CodeKind


USER, KERNEL = 3, 0


class QuickTransfers:
    """Of one guest."""

    def __init__(self, guest: MirroredGuest, engine: NativeEngine, look: FirstLook) -> None:
        self._cpu = guest.cpu
        self._space = guest.space
        self._ram = guest.machine.ram.view
        self._engine = engine
        self._look = look
        self._sides: dict[int, _Side] = {}
        self._version = -1
        self._closed_to_none = b""
        """Data segments, raw, that a return to ring 3 leaves as they are."""
        self.raw = b""
        """CS and SS, hidden parts and all, after the last transfer to another ring."""

    def resuming(self) -> None:
        """The processor has just been given the guest's state in full."""
        cpu, space = self._cpu, self._space
        if self._version != space.descriptors.version:
            self._sides.clear()
            self._closed_to_none = b""
            self._version = space.descriptors.version
        level = cpu.cpl
        code, stack, kind = cpu.segment(SegmentRegister.CS), cpu.segment(SegmentRegister.SS), space.kind
        known = self._sides.get(level)
        if known is not None and known.code == code and known.stack == stack and known.kind == kind:
            return
        self._sides.pop(level, None)
        if (
            kind is None
            or kind.by_paragraphs
            or kind.mode != capstone.CS_MODE_32
            or cpu.control(Setting.EFER) & EFER_LMA
            or not all(_is_flat(segment, level) for segment in (code, stack))
        ):
            return
        real_code, real_stack = (cpu.loaded(register) for register in (SegmentRegister.CS, SegmentRegister.SS))
        raw = self._engine.ring_3_segments()
        self._sides[level] = _Side(code, stack, real_code, real_stack, raw, kind)

    # -- in ----------------------------------------------------------------------------------

    def reflect(self, vector: int, level: int) -> bool:
        """The guest stands behind an INT n at this level; True if it now stands before its own handler."""
        cpu, look, ram, space = self._cpu, self._look, self._ram, self._space
        view = space.mirror.kernel
        present, kernel = self._sides.get(level), self._sides.get(KERNEL)
        table = cpu.idtr
        if present is None or kernel is None or vector * _GATE_SIZE + _GATE_SIZE - 1 > table.limit:
            return False
        at = space.place(table.base + vector * _GATE_SIZE, _GATE_SIZE, view)
        if at is None:
            return False
        low, high = ram[at : at + 4], ram[at + 4 : at + 8]
        kind = high[1]
        if kind & _GATE_BITS != _PRESENT_386_GATE or kind >> _GATE_DPL_SHIFT & 3 < level:
            return False
        if low[2] | low[3] << 8 != kernel.code.selector:
            return False
        eflags = self._engine.read_register(EFLAGS_ID)
        flags = cpu.eflags & VIRTUAL_FLAGS & ~EFLAGS_RF | eflags & ~VIRTUAL_FLAGS
        if flags & _ODD:
            return False
        back = look.eip.value
        if level == KERNEL:
            esp = look.esp.value - _INNER.size & _WHOLE
            at = space.place(esp, _INNER.size, view, write=True)
            if at is None:
                return False
            _INNER.pack_into(ram, at, back, present.code.selector, flags)
        else:
            at = space.place(cpu.tr.base + _STACK_IN_TSS, 8, view)
            if at is None or cpu.tr.limit < _STACK_IN_TSS + 5 or not cpu.tr.system_type & 8:
                return False
            if ram[at + 4] | ram[at + 5] << 8 != kernel.stack.selector:
                return False
            esp = int.from_bytes(ram[at : at + 4], "little") - _OUTER.size & _WHOLE
            at = space.place(esp, _OUTER.size, view, write=True)
            if at is None:
                return False
            _OUTER.pack_into(ram, at, back, present.code.selector, flags, look.esp.value, present.stack.selector)
            self._change_side(kernel)
        if not kind & _TRAP_GATE:
            flags &= ~EFLAGS_IF
        cpu.eflags = flags
        look.eip.value = low[0] | low[1] << 8 | high[2] << 16 | high[3] << 24
        look.esp.value = esp
        return True

    # -- out ---------------------------------------------------------------------------------

    def iret(self) -> int | None:
        """The guest's kernel stands before an IRETD: EIP, once all else of it is done; None if nothing is."""
        cpu, look, engine = self._cpu, self._look, self._engine
        present = self._sides.get(KERNEL)
        eflags = engine.read_register(EFLAGS_ID)
        if present is None or cpu.nmi_blocked or (eflags & ~VIRTUAL_FLAGS | cpu.eflags & VIRTUAL_FLAGS) & _ODD:
            return None
        esp = look.esp.value
        at = self._space.place(esp, _OUTER.size, self._space.mirror.kernel)
        if at is None:
            return None
        eip, selector, flags, outer_esp, outer_stack = _OUTER.unpack_from(self._ram, at)
        if flags & _ODD:
            return None
        selector &= 0xFFFF
        if selector == present.code.selector:
            esp = esp + _INNER.size & _WHOLE
        else:
            outer = self._sides.get(USER)
            if outer is None or selector != outer.code.selector or outer_stack & 0xFFFF != outer.stack.selector:
                return None
            if not self._leaves_data_segments():
                return None
            esp = outer_esp
            self._change_side(outer)
        flags = flags & _RETURNABLE | EFLAGS_FIXED
        engine.set_flags(flags & ~VIRTUAL_FLAGS | EFLAGS_IF)
        cpu.eflags = flags
        look.esp.value = esp
        return int(eip)

    def _leaves_data_segments(self) -> bool:
        """Whether a return to ring 3 leaves ES, DS, FS and GS alone: each is open there, or null."""
        raw = self._look.segments()
        data = b"".join(raw[_SEGMENT_SIZE * register :][:_SEGMENT_SIZE] for register in _DATA)
        if data == self._closed_to_none:
            return True
        for register in _DATA:
            selector = int.from_bytes(raw[_SEGMENT_SIZE * register :][:2], "little")
            if selector & TABLE_INDICATOR:
                return False
            if selector & ~RPL_MASK and self._space.descriptors.level_of(selector >> 3) != USER:
                return False
        self._closed_to_none = data
        return True

    # -- both --------------------------------------------------------------------------------

    def _change_side(self, side: _Side) -> None:
        self.raw = side.raw
        self._engine.load_ring_3_segments(side.raw)
        self._cpu.note_loaded(side.code, side.stack, side.real_code, side.real_stack)
        root, table = self._space.change_view(side.kind, kernel=side.kind.guards_loads)
        self._look.load_tables(root, table)


def _is_flat(segment: Segment, level: int) -> bool:
    """Whether it is a segment of the GDT from 0 to 4 GiB, of 32 bits, as it is loaded at this level."""
    selector = segment.selector
    return (
        not selector & TABLE_INDICATOR
        and selector & RPL_MASK == level == segment.dpl
        and not segment.base
        and segment.limit == _WHOLE
        and bool(segment.is_32bit)
    )
