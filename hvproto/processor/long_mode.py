"""Delivery in long mode: 16-byte gates, the interrupt stack table, 64-bit frames (SDM vol. 3, 6.14)."""

from __future__ import annotations

from hvproto.processor.exceptions import Delivered, Event, Raised, Source, Target, load_descriptor
from hvproto.processor.segments import (
    DEFAULT_BIG,
    DPL_SHIFT,
    LONG,
    RPL_MASK,
    TSS32_AVAILABLE,
    TSS_BUSY_BIT,
    Segment,
)
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM

INTERRUPT_GATE, TRAP_GATE = 0xE, 0xF
LINEAR_64 = 0xFFFF_FFFF_FFFF_FFFF
TSS_RSP0 = 4
TSS_IST1 = 0x24


def is_canonical(linear: int) -> bool:
    """Whether bits 47 to 63 are all alike (SDM vol. 1, 3.3.7.1).

    >>> is_canonical(0x7FFF_FFFF_FFFF), is_canonical(0x8000_0000_0000), is_canonical(0xFFFF_8000_0000_0000)
    (True, False, True)
    """
    return linear >> 47 in (0, 0x1FFFF)


def through_wide_gate(target: Target, event: Event) -> Delivered:
    """The state behind the gate; what the handler's stack must hold has been pushed. Raises `Raised`."""
    gate_error = event.vector * 8 + 2 + event.ext
    idtr = target.idtr
    if event.vector * 16 + 15 > idtr.limit:
        raise Raised(13, gate_error)
    place = idtr.base + event.vector * 16
    low, high = target.read(place, 8), target.read(place + 8 & LINEAR_64, 8)
    kind = low >> 40 & 0x1F
    if kind not in (INTERRUPT_GATE, TRAP_GATE) or high >> 40 & 0x1F:
        raise Raised(13, gate_error)
    if event.source is Source.SOFTWARE and low >> 45 & 3 < target.cpl:
        raise Raised(13, gate_error)
    if not low >> 47 & 1:
        raise Raised(11, gate_error)
    selector = low >> 16 & 0xFFFF
    offset = (low & 0xFFFF) | (low >> 32 & 0xFFFF0000) | (high & 0xFFFF_FFFF) << 32

    error = selector & ~RPL_MASK | event.ext
    code = load_descriptor(target, selector, event.ext)
    if not code.is_code or code.dpl > target.cpl or code.attributes & (LONG | DEFAULT_BIG) != LONG:
        raise Raised(13, error)
    if not code.present:
        raise Raised(11, error)
    new_cpl = target.cpl if code.is_conforming else code.dpl

    eflags = target.eflags
    stack: Segment | None = None
    ist = low >> 32 & 7
    if ist or new_cpl < target.cpl:
        rsp = _stack_from_tss(target, TSS_IST1 + 8 * (ist - 1) if ist else TSS_RSP0 + 8 * new_cpl, event.ext)
    else:
        rsp = target.esp
    if new_cpl < target.cpl:
        stack = Segment(new_cpl, 0, 0, new_cpl << DPL_SHIFT)  # null, with the new level as its RPL
    pushed = eflags | EFLAGS_RF if event.source is Source.FAULT else eflags
    frame = [target.stack.selector, target.esp, pushed, target.code.selector, event.return_eip]
    if event.error_code is not None:
        frame.append(event.error_code)
    rsp &= ~0xF
    for value in frame:
        rsp = rsp - 8 & LINEAR_64
        if not is_canonical(rsp):
            raise Raised(12, event.ext)
        target.write(rsp, 8, value & LINEAR_64, user=new_cpl == 3)
    eflags &= ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM)
    if kind == INTERRUPT_GATE:
        eflags &= ~EFLAGS_IF
    code = code.with_selector(selector & ~RPL_MASK | new_cpl)
    return Delivered(event.vector, code, offset, stack, rsp, eflags, event.error_code)


def _stack_from_tss(target: Target, at: int, external: int) -> int:
    tr = target.tr
    if tr.system_type & ~TSS_BUSY_BIT != TSS32_AVAILABLE or at + 7 > tr.limit:
        raise Raised(10, tr.selector & ~RPL_MASK | external)
    rsp = target.read(tr.base + at & LINEAR_64, 8)
    if not is_canonical(rsp):
        raise Raised(12, external)
    return rsp
