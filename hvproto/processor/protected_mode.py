"""Delivery in protected mode: through interrupt, trap and task gates of 16 and 32 bits (SDM vol. 3, 6.10 to 6.12)."""

from __future__ import annotations

from hvproto.processor.exceptions import (
    LINEAR_32,
    Delivered,
    Event,
    Raised,
    Source,
    Target,
    load_descriptor,
    push_all,
)
from hvproto.processor.segments import (
    RPL_MASK,
    TSS16_AVAILABLE,
    TSS32_BIT,
    TSS_BUSY_BIT,
    Segment,
)
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM

TASK_GATE = 0x5
INTERRUPT_AND_TRAP_GATES = (0x6, 0x7, 0xE, 0xF)
GATE_32_BIT = 8
TRAP_GATE_BIT = 1


def through_gate(target: Target, event: Event) -> Delivered:
    """The state behind the gate; what the handler's stack must hold has been pushed. Raises `Raised`."""
    gate_error = event.vector * 8 + 2 + event.ext
    idtr = target.idtr
    if event.vector * 8 + 7 > idtr.limit:
        raise Raised(13, gate_error)
    gate = target.read(idtr.base + event.vector * 8 & LINEAR_32, 8)
    kind = gate >> 40 & 0x1F
    if kind not in (TASK_GATE, *INTERRUPT_AND_TRAP_GATES):
        raise Raised(13, gate_error)
    if event.source is Source.SOFTWARE and gate >> 45 & 3 < target.cpl:
        raise Raised(13, gate_error)
    if not gate >> 47 & 1:
        raise Raised(11, gate_error)
    selector = gate >> 16 & 0xFFFF
    if kind == TASK_GATE:
        return target.switch_task(event, selector)
    wide = bool(kind & GATE_32_BIT)
    offset = (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000 if wide else 0)
    code = handler_segment(target, event, selector)
    new_cpl = target.cpl if code.is_conforming else code.dpl
    if event.v86 and new_cpl:
        raise Raised(13, selector & ~RPL_MASK | event.ext)

    eflags = target.eflags
    pushed = eflags | EFLAGS_RF if event.source is Source.FAULT else eflags
    frame = [pushed, target.code.selector, event.return_eip]
    stack: Segment | None = None
    if new_cpl < target.cpl:
        stack, esp = inner_stack(target, new_cpl, event.ext)
        frame = [*event.v86, target.stack.selector, target.esp, *frame]
    else:
        esp = target.esp
    if event.error_code is not None:
        frame.append(event.error_code)
    esp = push_all(target, stack or target.stack, esp, frame, 4 if wide else 2, user=new_cpl == 3)
    eflags &= ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM)
    if not kind & TRAP_GATE_BIT:
        eflags &= ~EFLAGS_IF
    code = code.with_selector(selector & ~RPL_MASK | new_cpl)
    return Delivered(event.vector, code, offset, stack, esp, eflags, event.error_code)


def handler_segment(target: Target, event: Event, selector: int) -> Segment:
    """The code segment that a gate names, checked."""
    code = load_descriptor(target, selector, event.ext)
    error = selector & ~RPL_MASK | event.ext
    if not code.is_code or code.dpl > target.cpl:
        raise Raised(13, error)
    if not code.present:
        raise Raised(11, error)
    return code


def inner_stack(target: Target, level: int, external: int) -> tuple[Segment, int]:
    """SS:ESP for an inner privilege level, from the current TSS (SDM vol. 3, 7.2.1)."""
    tr = target.tr
    size = 4 if tr.system_type & TSS32_BIT else 2
    at = (2 * level + 1) * size
    if tr.system_type & ~(TSS32_BIT | TSS_BUSY_BIT) != TSS16_AVAILABLE or at + size + 1 > tr.limit:
        raise Raised(10, tr.selector & ~RPL_MASK | external)
    esp = target.read(tr.base + at & LINEAR_32, size)
    selector = target.read(tr.base + at + size & LINEAR_32, 2)
    if not selector & ~RPL_MASK:
        raise Raised(10, external)
    bad_stack = selector & ~RPL_MASK | external
    stack = load_descriptor(target, selector, external, vector=10)
    if stack.rpl != level or stack.dpl != level or not stack.is_writable_data:
        raise Raised(10, bad_stack)
    if not stack.present:
        raise Raised(12, bad_stack)
    return stack, esp
