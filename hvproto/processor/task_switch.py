"""Hardware task switches: through a task gate in the IDT, by JMP and CALL, and back by IRET (SDM vol. 3, 7.3).

They are ours, for both engines and for what comes from outside. Up to the point where the new task is the current one
a fault belongs to the old task; behind it, to the new.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvproto.processor.exceptions import (
    DEBUG_VECTOR,
    LINEAR_32,
    Delivered,
    Event,
    Raised,
    Source,
    descriptor_place,
    load_descriptor,
    push_all,
)
from hvproto.processor.far_task_segments import TSS_ORDER, load_task_segments
from hvproto.processor.paging import Access
from hvproto.processor.segments import (
    DPL_SHIFT,
    NULL_SEGMENT,
    RPL_MASK,
    TABLE_INDICATOR,
    TSS16_AVAILABLE,
    TSS32_AVAILABLE,
    TSS32_BIT,
    TSS_BUSY_BIT,
    TYPE_SHIFT,
    Segment,
    v86_segment,
)
from hvproto.processor.settings import CR0_PG, CR0_TS, EFLAGS_FIXED, EFLAGS_NT, EFLAGS_RF, EFLAGS_VM, Setting

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

INVALID_TSS, NOT_PRESENT, PROTECTION = 10, 11, 13
EFLAGS_DEFINED = 0x3F_7FD7
DR6_BT = 1 << 15
_CR3_AT, _TRAP_AT = 0x1C, 0x64


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the two formats of a TSS: how its dynamic fields are packed, and where."""

    state: struct.Struct
    """EIP, EFLAGS, eight general registers, the segment selectors, and the LDT's."""
    at: int
    field: int
    """The size of a general register's field."""
    saved_limit: int
    """The last byte of what is stored when the task is left."""
    limit: int
    segments: int

    def unpack(self, raw: bytes) -> tuple[int, int, tuple[int, ...], tuple[int, ...], int]:
        values = self.state.unpack(raw)
        return values[0], values[1], values[2:10], values[10 : 10 + self.segments], values[10 + self.segments]


_TSS32 = _Form(struct.Struct("<10I" + "Hxx" * 7), 0x20, 4, 0x5F, 0x67, 6)
_TSS16 = _Form(struct.Struct("<15H"), 0x0E, 2, 0x29, 0x2B, 4)


@dataclass(frozen=True, slots=True)
class _Departure:
    """How the old task is left: what its TSS is to hold, and whether the new one is nested in it."""

    eip: int
    eflags: int
    nested: bool
    external: int = 0
    """The EXT bit of error codes."""


def switch_task(processor: Cpu, target: LiveTarget, event: Event, selector: int) -> Delivered:
    """Make the task that a gate in the IDT names the current one, nested in the old one. Raises `Raised`."""
    new = _available_tss(target, selector, event.ext)
    eflags = target.eflags | (EFLAGS_RF if event.source is Source.FAULT else 0)
    traps = _switch(processor, target, new, _Departure(event.return_eip, eflags, True, event.ext))
    esp = processor.esp
    if event.error_code is not None:
        target = processor.target()
        try:
            esp = push_all(target, target.stack, esp, [event.error_code], _form(new).field, user=target.cpl == 3)
        except Raised as fault:
            raise _committed(fault) from None
    if traps:
        processor.esp = esp
        raise _task_trap(processor)
    eip, eflags = processor.eip, processor.eflags
    return Delivered(event.vector, processor.code, eip, None, esp, eflags, event.error_code, switched=True)


def switch_by_branch(processor: Cpu, target: LiveTarget, selector: int, after: int, *, nested: bool) -> None:
    """JMP or, ``nested``, CALL to a task; ``after`` is the EIP behind the instruction. Raises `Raised`."""
    new = _available_tss(target, selector, 0)
    _switch_by_instruction(processor, target, new, _Departure(after, target.eflags & ~EFLAGS_RF, nested))


def switch_back(processor: Cpu, target: LiveTarget, after: int) -> None:
    """IRET with NT: to the task in which this one is nested; ``after`` is the EIP behind it. Raises `Raised`."""
    selector = target.read(target.tr.base, 2)
    error = selector & ~RPL_MASK
    if selector & TABLE_INDICATOR or not error:
        raise Raised(INVALID_TSS, error)
    new = load_descriptor(target, selector, vector=INVALID_TSS)
    if not new.is_system or new.system_type not in (TSS16_AVAILABLE | TSS_BUSY_BIT, TSS32_AVAILABLE | TSS_BUSY_BIT):
        raise Raised(INVALID_TSS, error)
    if not new.present:
        raise Raised(NOT_PRESENT, error)
    if new.limit < _form(new).limit:
        raise Raised(INVALID_TSS, error)
    departure = _Departure(after, target.eflags & ~(EFLAGS_RF | EFLAGS_NT), nested=False)
    _switch_by_instruction(processor, target, new, departure)


def _switch_by_instruction(processor: Cpu, target: LiveTarget, new: Segment, departure: _Departure) -> None:
    traps = _switch(processor, target, new, departure)
    if processor.eip > processor.code.limit:
        raise Raised(PROTECTION, 0, committed=True)
    if traps:
        raise _task_trap(processor)


def _task_trap(processor: Cpu) -> Raised:
    """T of the new TSS: #DB before its first instruction (SDM vol. 3, 17.3.1.5)."""
    processor.set_debug_register(6, processor.debug_register(6) | DR6_BT)
    return Raised(DEBUG_VECTOR, committed=True)


def _committed(fault: Raised) -> Raised:
    return Raised(fault.vector, fault.error_code, fault.cr2, committed=True)


def _form(tss: Segment) -> _Form:
    return _TSS32 if tss.system_type & TSS32_BIT else _TSS16


def _available_tss(target: LiveTarget, selector: int, external: int) -> Segment:
    error = selector & ~RPL_MASK | external
    if selector & TABLE_INDICATOR or not selector & ~RPL_MASK:
        raise Raised(PROTECTION, error)
    tss = load_descriptor(target, selector, external)
    if not tss.is_system or tss.system_type not in (TSS16_AVAILABLE, TSS32_AVAILABLE):
        raise Raised(PROTECTION, error)
    if not tss.present:
        raise Raised(NOT_PRESENT, error)
    if tss.limit < _form(tss).limit:
        raise Raised(INVALID_TSS, error)
    return tss


def _switch(processor: Cpu, target: LiveTarget, new: Segment, departure: _Departure) -> bool:
    """Leave the current task for another; whether that has its T bit set. Raises `Raised`, committed or not."""
    old, form = target.tr, _form(new)
    if old.limit < _form(old).saved_limit:
        raise Raised(INVALID_TSS, old.selector & ~RPL_MASK | departure.external)
    busy_old = descriptor_place(target, old.selector, departure.external, INVALID_TSS) + 5
    busy_new = descriptor_place(target, new.selector) + 5
    _see_that_nothing_faults(processor, old, new, busy_new, None if departure.nested else busy_old, departure.nested)

    _store_state(processor, target, old, departure)
    raw = target.read_bytes(new.base + form.at & LINEAR_32, form.state.size)
    wide = form is _TSS32
    cr3 = target.read(new.base + _CR3_AT & LINEAR_32, 4) if wide else None
    traps = wide and bool(target.read(new.base + _TRAP_AT & LINEAR_32, 1) & 1)
    if departure.nested:
        target.write(new.base, 2, old.selector)
    else:
        _set_busy(target, busy_old, on=False)
    _set_busy(target, busy_new, on=True)
    new = Segment(new.selector, new.base, new.limit, new.attributes | TSS_BUSY_BIT << TYPE_SHIFT)
    _enter(processor, departure, new, form, raw, cr3)
    return traps


def _see_that_nothing_faults(
    processor: Cpu, old: Segment, new: Segment, busy_new: int, busy_old: int | None, nested: bool
) -> None:
    """All pages that the switch touches are there before it changes anything (SDM vol. 3, 7.3, step 5)."""
    written = [old.base + _form(old).at, old.base + _form(old).saved_limit, busy_new]
    if nested:
        written += [new.base, new.base + 1]
    if busy_old is not None:
        written.append(busy_old)
    read = (new.base + _form(new).at, new.base + _form(new).limit)
    mode = processor.paging_mode
    for access, places in ((Access.WRITE, written), (Access.READ, read)):
        for linear in places:
            processor.resolve(linear & LINEAR_32, access, user=False, mode=mode)


def _set_busy(target: LiveTarget, place: int, *, on: bool) -> None:
    """The busy bit in a TSS descriptor, by the linear address of its byte 5."""
    value = target.read(place & LINEAR_32, 1) & ~TSS_BUSY_BIT
    target.write(place & LINEAR_32, 1, value | (TSS_BUSY_BIT if on else 0))


def _store_state(processor: Cpu, target: LiveTarget, old: Segment, departure: _Departure) -> None:
    form = _form(old)
    mask = (1 << 8 * form.field) - 1
    values = [departure.eip & mask, departure.eflags & mask, *(processor.gpr(index) & mask for index in range(8))]
    selectors = [processor.segment(register).selector for register in TSS_ORDER[: form.segments]]
    # The LDT's selector and what stands between the fields stay as they are.
    place = old.base + form.at
    for index, value in enumerate(values):
        target.write(place + form.field * index & LINEAR_32, form.field, value)
    for index, value in enumerate(selectors, len(values)):
        target.write(place + form.field * index & LINEAR_32, 2, value)


def _enter(processor: Cpu, departure: _Departure, new: Segment, form: _Form, raw: bytes, cr3: int | None) -> None:
    """Load the new task's state: from here on faults are its own."""
    eip, eflags, registers, selectors, ldt = form.unpack(raw)
    processor.note_task_switch()
    processor.write_setting(Setting.TR, new)
    processor.write_setting(Setting.CR0, processor.control(Setting.CR0) | CR0_TS)
    if cr3 is not None and processor.control(Setting.CR0) & CR0_PG:
        processor.write_setting(Setting.CR3, cr3)
    for index, value in enumerate(registers):
        # The upper halves that a 16-bit TSS doesn't hold are all ones, as on the first processor that had both.
        processor.set_gpr(index, value if form is _TSS32 else value | 0xFFFF_0000)
    processor.eip = eip
    eflags = eflags & EFLAGS_DEFINED | EFLAGS_FIXED | (EFLAGS_NT if departure.nested else 0)
    # All selectors are loaded before any is checked: a fault finds them in the registers, their hidden parts empty.
    # Until SS is usable the ring is 3 (SS brings it): such a fault's handler gets a stack from the TSS.
    v86 = bool(eflags & EFLAGS_VM)
    bare = {
        register: v86_segment(selector) if v86 else Segment(selector, attributes=3 << DPL_SHIFT)
        for register, selector in zip(TSS_ORDER, (*selectors, 0, 0), strict=False)
    }
    processor.eflags = eflags & ~EFLAGS_VM
    processor.write_setting(Setting.LDTR, NULL_SEGMENT.with_selector(ldt))
    processor.eflags = eflags
    processor.set_segments(bare)
    try:
        load_task_segments(processor, ldt, selectors, v86=v86, external=departure.external)
    except Raised as fault:
        raise _committed(fault) from None
