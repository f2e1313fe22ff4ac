"""Delivery of exceptions and interrupts through the IDT (SDM vol. 3, chapter 6), in Python.

The algorithm is written over a `Target`: the portable engine applies it to the real processor, the
hypervisor to a guest's virtual one when it reflects an exception, and both engines to the real one
for what comes from outside (an interrupt request). 32-bit protected mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hvproto.errors import Fault
from hvproto.processor.segments import (
    RPL_MASK,
    TABLE_INDICATOR,
    TSS16_AVAILABLE,
    TSS32_BIT,
    TSS_BUSY_BIT,
    Segment,
    TableRegister,
    decode_descriptor,
)
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM


class Raised(Exception):
    """An exception raised in the middle of an operation, not yet delivered."""

    def __init__(self, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
        super().__init__(vector, error_code, cr2)
        self.vector = vector
        self.error_code = error_code
        self.cr2 = cr2

    @property
    def fault(self) -> Fault:
        return Fault(self.vector, self.error_code, self.cr2)


class Shutdown(Exception):
    """A triple fault; ``faults`` are the three exceptions: the first, the one that delivering it
    raised (together: #DF), and the one that delivering #DF raised."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults


class Source(Enum):
    """What an event comes from; decides the gate's DPL check and the EXT bit."""

    EXTERNAL = "external"
    EXCEPTION = "exception"
    SOFTWARE = "software"


@dataclass(frozen=True, slots=True)
class Event:
    """Something to deliver. ``return_eip`` is what the handler's frame will hold."""

    vector: int
    source: Source
    return_eip: int
    error_code: int | None = None
    cr2: int | None = None
    v86: tuple[int, ...] = ()
    """GS, FS, DS and ES (selectors) if it interrupts virtual-8086 mode, which the handler's frame then holds too."""


class Target(Protocol):
    """The processor state that delivery reads. Linear memory access is at supervisor level."""

    @property
    def cpl(self) -> int: ...
    @property
    def esp(self) -> int: ...
    @property
    def eflags(self) -> int: ...
    @property
    def code(self) -> Segment: ...
    @property
    def stack(self) -> Segment: ...
    @property
    def idtr(self) -> TableRegister: ...
    @property
    def gdtr(self) -> TableRegister: ...
    @property
    def ldtr(self) -> Segment: ...
    @property
    def tr(self) -> Segment: ...
    def read(self, linear: int, size: int) -> int: ...
    def write(self, linear: int, size: int, value: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Delivered:
    """The state that delivery leads to; nothing but the handler's stack has been written yet."""

    vector: int
    code: Segment
    eip: int
    stack: Segment | None
    """The new stack segment, or None where the stack wasn't switched."""
    esp: int
    eflags: int
    error_code: int | None
    faults: tuple[Fault, ...]
    """All exceptions on the way, the first one first; more than one after nested faults."""
    cr2: int | None = None


CONTRIBUTORY = frozenset({0, 10, 11, 12, 13})
PAGE_FAULT = 14
DOUBLE_FAULT = 8


def deliver(target: Target, event: Event, faulting_eip: int) -> Delivered:
    """Deliver an event, nested faults and the double fault included.

    ``faulting_eip`` is the address of the instruction that was executing: what a fault during
    delivery reports. Raises `Shutdown` for a triple fault (SDM vol. 3, table 6-5).
    """
    faults: list[Fault] = []
    merged = False
    cr2 = event.cr2
    while True:
        if event.source is Source.EXCEPTION and not merged:
            faults.append(Fault(event.vector, event.error_code, event.cr2))
        try:
            return _deliver_once(target, event, tuple(faults), cr2)
        except Raised as nested:
            if nested.cr2 is not None:
                cr2 = nested.cr2
            first = event.vector if event.source is Source.EXCEPTION else None
            if first == DOUBLE_FAULT:
                raise Shutdown((*faults, nested.fault)) from None
            vector, code, address = nested.vector, nested.error_code, nested.cr2
            merged = _makes_double_fault(first, nested.vector)
            if merged:
                faults.append(nested.fault)
                vector, code, address = DOUBLE_FAULT, 0, None
            event = Event(vector, Source.EXCEPTION, faulting_eip, code, address, event.v86)


def _makes_double_fault(first: int | None, second: int) -> bool:
    if first == PAGE_FAULT:
        return second == PAGE_FAULT or second in CONTRIBUTORY
    return first in CONTRIBUTORY and second in CONTRIBUTORY


def _deliver_once(target: Target, event: Event, faults: tuple[Fault, ...], cr2: int | None) -> Delivered:
    external = 0 if event.source is Source.SOFTWARE else 1
    gate_error = event.vector * 8 + 2 + external
    idtr = target.idtr
    if event.vector * 8 + 7 > idtr.limit:
        raise Raised(13, gate_error)
    gate = target.read(idtr.base + event.vector * 8 & 0xFFFF_FFFF, 8)
    kind = gate >> 40 & 0x1F
    if kind not in (0x6, 0x7, 0xE, 0xF):
        raise Raised(13, gate_error)
    if event.source is Source.SOFTWARE and gate >> 45 & 3 < target.cpl:
        raise Raised(13, gate_error)
    if not gate >> 47 & 1:
        raise Raised(11, gate_error)
    wide = bool(kind & 8)
    selector = gate >> 16 & 0xFFFF
    offset = (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000 if wide else 0)

    code = load_descriptor(target, selector, external)
    if not code.is_code or code.dpl > target.cpl:
        raise Raised(13, selector & ~RPL_MASK | external)
    if not code.present:
        raise Raised(11, selector & ~RPL_MASK | external)
    new_cpl = target.cpl if code.is_conforming else code.dpl

    if event.v86 and new_cpl:
        raise Raised(13, selector & ~RPL_MASK | external)

    eflags = target.eflags
    frame = [eflags, target.code.selector, event.return_eip]
    stack: Segment | None = None
    if new_cpl < target.cpl:
        stack, esp = _inner_stack(target, new_cpl, external)
        frame = [*event.v86, target.stack.selector, target.esp, *frame]
    else:
        esp = target.esp
    if event.error_code is not None:
        frame.append(event.error_code)
    esp = push_all(target, stack or target.stack, esp, frame, 4 if wide else 2)
    eflags &= ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM)
    if not kind & 1:  # an interrupt gate; a trap gate leaves IF
        eflags &= ~EFLAGS_IF
    code = code.with_selector(selector & ~RPL_MASK | new_cpl)
    return Delivered(event.vector, code, offset, stack, esp, eflags, event.error_code, faults, cr2)


def _inner_stack(target: Target, level: int, external: int) -> tuple[Segment, int]:
    """SS:ESP for an inner privilege level, from the current TSS (SDM vol. 3, 7.2.1)."""
    tr = target.tr
    size = 4 if tr.system_type & TSS32_BIT else 2
    at = (2 * level + 1) * size
    if tr.system_type & ~(TSS32_BIT | TSS_BUSY_BIT) != TSS16_AVAILABLE or at + size + 1 > tr.limit:
        raise Raised(10, tr.selector & ~RPL_MASK | external)
    esp = target.read(tr.base + at & 0xFFFF_FFFF, size)
    selector = target.read(tr.base + at + size & 0xFFFF_FFFF, 2)
    if not selector & ~RPL_MASK:
        raise Raised(10, external)
    bad_stack = selector & ~RPL_MASK | external
    stack = load_descriptor(target, selector, external, vector=10)
    if stack.rpl != level or stack.dpl != level or not stack.is_writable_data:
        raise Raised(10, bad_stack)
    if not stack.present:
        raise Raised(12, bad_stack)
    return stack, esp


def load_descriptor(target: Target, selector: int, external: int = 0, vector: int = 13) -> Segment:
    """What a selector stands for; ``vector`` with the selector as error code if nothing."""
    if not selector & ~RPL_MASK:
        raise Raised(vector, external)
    error = selector & ~RPL_MASK | external
    if selector & TABLE_INDICATOR:
        table = TableRegister(target.ldtr.base, target.ldtr.limit if target.ldtr.present else 0)
    else:
        table = target.gdtr
    at = selector & ~(RPL_MASK | TABLE_INDICATOR)
    if at + 7 > table.limit:
        raise Raised(vector, error)
    return decode_descriptor(selector, target.read(table.base + at & 0xFFFF_FFFF, 8))


def push_all(target: Target, stack: Segment, esp: int, values: list[int], size: int) -> int:
    """Push values in order, ``size`` bytes each; returns the new ESP. A 16-bit stack wraps at 64 KiB."""
    mask = 0xFFFF_FFFF if stack.is_32bit else 0xFFFF
    for value in values:
        top = (esp - size) & mask
        esp = esp & ~mask | top
        target.write(stack.base + top & 0xFFFF_FFFF, size, value & ((1 << 8 * size) - 1))
    return esp
