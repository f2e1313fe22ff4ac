"""Delivery of exceptions and interrupts (SDM vol. 3, chapter 6), in Python: nested faults, double fault, shutdown.

The algorithm is written over a `Target`: the portable engine applies it to the real processor, the
hypervisor to a guest's virtual one when it reflects an exception, and both engines to the real one
for what comes from outside (an interrupt request). How one event gets through its gate is a matter of the mode:
`real_mode`, `protected_mode`, `long_mode`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hvproto.errors import Fault
from hvproto.processor.exceptions import Delivered, Event, Raised, Shutdown, Target, exception_source
from hvproto.processor.long_mode import through_wide_gate
from hvproto.processor.protected_mode import through_gate
from hvproto.processor.real_mode import through_vector

CONTRIBUTORY = frozenset({0, 10, 11, 12, 13})
PAGE_FAULT = 14
DOUBLE_FAULT = 8


def deliver(
    target: Target, event: Event, faulting_eip: int, refreshed: Callable[[], Target] | None = None
) -> Delivered:
    """Deliver an event, nested faults and the double fault included.

    ``faulting_eip`` is the address of the instruction that was executing: what a fault during
    delivery reports. ``refreshed`` gives a new target after a task switch that faulted behind the point of no return.
    Raises `Shutdown` for a triple fault (SDM vol. 3, table 6-5).
    """
    faults: list[Fault] = []
    merged = False
    cr2 = event.cr2
    while True:
        if event.source.is_exception and not merged:
            faults.append(Fault(event.vector, event.error_code, event.cr2))
        try:
            return replace(_deliver_once(target, event), faults=tuple(faults), cr2=cr2)
        except Raised as nested:
            if nested.cr2 is not None:
                cr2 = nested.cr2
            if nested.committed and refreshed is not None:
                target = refreshed()
                faulting_eip = target.eip
                event = replace(event, v86=())
            first = event.vector if event.source.is_exception else None
            if first == DOUBLE_FAULT:
                raise Shutdown((*faults, nested.fault)) from None
            vector, code, address = nested.vector, nested.error_code, nested.cr2
            merged = _makes_double_fault(first, nested.vector)
            if merged:
                faults.append(nested.fault)
                vector, code, address = DOUBLE_FAULT, 0, None
            event = Event(vector, exception_source(vector), faulting_eip, code, address, event.v86)


def _makes_double_fault(first: int | None, second: int) -> bool:
    if first == PAGE_FAULT:
        return second == PAGE_FAULT or second in CONTRIBUTORY
    return first in CONTRIBUTORY and second in CONTRIBUTORY


def _deliver_once(target: Target, event: Event) -> Delivered:
    if not target.protected:
        return through_vector(target, event)
    if target.long_mode:
        return through_wide_gate(target, event)
    return through_gate(target, event)
