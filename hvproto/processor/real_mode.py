"""Delivery in real-address mode: through the interrupt vector table (SDM vol. 3, 20.1.4)."""

from __future__ import annotations

from hvproto.processor.exceptions import LINEAR_32, Delivered, Event, Raised, Target, push_all
from hvproto.processor.segments import Segment
from hvproto.processor.settings import EFLAGS_AC, EFLAGS_IF, EFLAGS_RF, EFLAGS_TF

GENERAL_PROTECTION = 13


def through_vector(target: Target, event: Event) -> Delivered:
    """FLAGS, CS and IP are pushed, 16 bits each; error codes are not, whatever the exception."""
    idtr = target.idtr
    if event.vector * 4 + 3 > idtr.limit:
        raise Raised(GENERAL_PROTECTION, 0)
    entry = target.read(idtr.base + event.vector * 4 & LINEAR_32, 4)
    frame = [target.eflags, target.code.selector, event.return_eip]
    esp = push_all(target, target.stack, target.esp, frame, 2)
    selector = entry >> 16
    code = Segment(selector, selector << 4, target.code.limit, target.code.attributes)
    eflags = target.eflags & ~(EFLAGS_IF | EFLAGS_TF | EFLAGS_RF | EFLAGS_AC)
    return Delivered(event.vector, code, entry & 0xFFFF, None, esp, eflags, None)
