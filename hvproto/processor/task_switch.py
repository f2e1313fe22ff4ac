"""Hardware task switches through a task gate in the IDT (SDM vol. 3, 7.3).

Those that JMP, CALL and IRET make are the engine's; through the IDT, ours, for both engines and for what comes from
outside. Up to the point where the new task is the current one a fault belongs to the old task; behind it, to the new.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvproto.processor.exceptions import (
    LINEAR_32,
    Delivered,
    Event,
    Raised,
    Source,
    descriptor_place,
    load_descriptor,
    push_all,
)
from hvproto.processor.segments import (
    DPL_SHIFT,
    NULL_SEGMENT,
    RPL_MASK,
    SYSTEM_LDT,
    TABLE_INDICATOR,
    TSS16_AVAILABLE,
    TSS32_AVAILABLE,
    TSS32_BIT,
    TSS_BUSY_BIT,
    Segment,
    SegmentRegister,
    decode_descriptor,
    v86_segment,
)
from hvproto.processor.settings import CR0_PG, CR0_TS, EFLAGS_FIXED, EFLAGS_NT, EFLAGS_RF, EFLAGS_VM, Setting

if TYPE_CHECKING:
    from hvproto.processor.live_target import LiveTarget
    from hvproto.processor.processor import Processor

_ORDER = tuple(SegmentRegister)
"""ES, CS, SS, DS, FS, GS: in a TSS as in their machine encoding."""
_BUSY_BIT_IN_MEMORY = TSS_BUSY_BIT
"""Of byte 5 of a TSS descriptor."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the two formats of a TSS: how its dynamic fields are packed, and where."""

    state: struct.Struct
    """EIP, EFLAGS, eight general registers, the segment selectors, and the LDT's."""
    at: int
    limit: int
    segments: int

    def unpack(self, raw: bytes) -> tuple[int, int, tuple[int, ...], tuple[int, ...], int]:
        values = self.state.unpack(raw)
        return values[0], values[1], values[2:10], values[10 : 10 + self.segments], values[10 + self.segments]


_TSS32 = _Form(struct.Struct("<10I" + "Hxx" * 7), 0x20, 0x67, 6)
_TSS16 = _Form(struct.Struct("<15H"), 0x0E, 0x2B, 4)
_CR3_AT, _TRAP_AT = 0x1C, 0x64


def switch_task(processor: Processor, target: LiveTarget, event: Event, selector: int) -> Delivered:
    """Make the task that a gate names the current one, nested in the old one. Raises `Raised`."""
    new = _available_tss(target, event, selector)
    form = _TSS32 if new.system_type & TSS32_BIT else _TSS16
    if new.limit < form.limit:
        raise Raised(10, selector & ~RPL_MASK | event.ext)
    old = target.tr
    _store_state(processor, target, old, event)
    place = descriptor_place(target, selector, event.ext) + 5
    raw = target.read_bytes(new.base + form.at, form.state.size)
    cr3 = target.read(new.base + _CR3_AT & LINEAR_32, 4) if form is _TSS32 else None
    target.write(new.base, 2, old.selector)
    target.write(place & LINEAR_32, 1, target.read(place & LINEAR_32, 1) | _BUSY_BIT_IN_MEMORY)
    return _enter(processor, event, new, form, raw, cr3)


def _available_tss(target: LiveTarget, event: Event, selector: int) -> Segment:
    error = selector & ~RPL_MASK | event.ext
    if selector & TABLE_INDICATOR or not selector & ~RPL_MASK:
        raise Raised(13, error)
    tss = load_descriptor(target, selector, event.ext)
    if not tss.is_system or tss.system_type not in (TSS16_AVAILABLE, TSS32_AVAILABLE):
        raise Raised(13, error)
    if not tss.present:
        raise Raised(11, error)
    return tss


def _store_state(processor: Processor, target: LiveTarget, old: Segment, event: Event) -> None:
    form = _TSS32 if old.system_type & TSS32_BIT else _TSS16
    flags = target.eflags | (EFLAGS_RF if event.source is Source.FAULT else 0)
    mask = LINEAR_32 if form is _TSS32 else 0xFFFF
    values = [event.return_eip & mask, flags & mask, *(processor.gpr(index) & mask for index in range(8))]
    selectors = [processor.segment(register).selector for register in _ORDER[: form.segments]]
    # The LDT's selector and what stands between the fields stay as they are.
    step = 4 if form is _TSS32 else 2
    place = old.base + form.at
    for index, value in enumerate(values):
        target.write(place + step * index & LINEAR_32, step, value)
    for index, value in enumerate(selectors, len(values)):
        target.write(place + step * index & LINEAR_32, 2, value)


def _enter(processor: Processor, event: Event, new: Segment, form: _Form, raw: bytes, cr3: int | None) -> Delivered:
    eip, eflags, registers, selectors, ldt = form.unpack(raw)
    processor.write_setting(Setting.TR, new)
    processor.write_setting(Setting.CR0, processor.control(Setting.CR0) | CR0_TS)
    if cr3 is not None and processor.control(Setting.CR0) & CR0_PG:
        processor.write_setting(Setting.CR3, cr3)
    for index, value in enumerate(registers):
        processor.set_gpr(index, value)
    processor.eip = eip
    eflags = eflags | EFLAGS_FIXED | EFLAGS_NT
    # All selectors are loaded before any is checked: a fault finds them in the registers, their hidden parts empty.
    v86 = bool(eflags & EFLAGS_VM)
    level = 3 if v86 else selectors[1] & RPL_MASK
    bare = {
        register: v86_segment(selector) if v86 else Segment(selector, attributes=level << DPL_SHIFT)
        for register, selector in zip(_ORDER, (*selectors, 0, 0), strict=False)
    }
    processor.eflags = eflags & ~EFLAGS_VM
    processor.write_setting(Setting.LDTR, NULL_SEGMENT.with_selector(ldt))
    processor.eflags = eflags
    processor.set_segments(bare)
    try:
        _load_segments(processor, ldt, selectors, v86=v86)
        esp = processor.esp
        if event.error_code is not None:
            target = processor.target()
            size = 4 if form is _TSS32 else 2
            esp = push_all(target, target.stack, esp, [event.error_code], size, user=target.cpl == 3)
    except Raised as fault:
        raise Raised(fault.vector, fault.error_code, fault.cr2, committed=True) from None
    return Delivered(event.vector, processor.code, eip, None, esp, eflags, event.error_code, switched=True)


def _load_segments(processor: Processor, ldt: int, selectors: tuple[int, ...], *, v86: bool) -> None:
    """LDTR and the segment registers of the new task, checked (SDM vol. 3, table 7-1)."""
    target = processor.target()
    if ldt & ~RPL_MASK:
        found = _found(target, ldt, 10) if not ldt & TABLE_INDICATOR else None
        if found is None or not found.is_system or found.system_type != SYSTEM_LDT or not found.present:
            raise Raised(10, ldt & ~RPL_MASK)
        processor.write_setting(Setting.LDTR, found)
        target = processor.target()
    if v86:
        return
    level = selectors[1] & RPL_MASK
    code = _found(target, selectors[1], 10)
    if not code.is_code or (code.dpl > level if code.is_conforming else code.dpl != level):
        raise Raised(10, selectors[1] & ~RPL_MASK)
    if not code.present:
        raise Raised(11, selectors[1] & ~RPL_MASK)
    stack = _found(target, selectors[2], 10)
    if not stack.is_writable_data or stack.dpl != level or stack.rpl != level:
        raise Raised(10, selectors[2] & ~RPL_MASK)
    if not stack.present:
        raise Raised(12, selectors[2] & ~RPL_MASK)
    loaded = {SegmentRegister.CS: _mark(target, code), SegmentRegister.SS: _mark(target, stack)}
    processor.set_segments(loaded)
    for register, selector in zip(_ORDER, selectors, strict=False):
        if register in loaded:
            continue
        if not selector & ~RPL_MASK:
            processor.set_segments({register: NULL_SEGMENT.with_selector(selector)})
            continue
        data = _found(target, selector, 10)
        closed = not data.is_conforming and (data.rpl > data.dpl or level > data.dpl)
        if not data.is_readable or closed:
            raise Raised(10, selector & ~RPL_MASK)
        if not data.present:
            raise Raised(11, selector & ~RPL_MASK)
        processor.set_segments({register: _mark(target, data)})


def _found(target: LiveTarget, selector: int, vector: int) -> Segment:
    place = descriptor_place(target, selector, vector=vector) if selector & ~RPL_MASK else None
    if place is None:
        raise Raised(vector, 0)
    return decode_descriptor(selector, target.read(place, 8))


def _mark(target: LiveTarget, segment: Segment) -> Segment:
    """The segment with its accessed bit set, in its table too."""
    place = descriptor_place(target, segment.selector) + 5
    target.write(place & LINEAR_32, 1, target.read(place & LINEAR_32, 1) | 1)
    return segment.accessed()
