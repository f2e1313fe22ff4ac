"""Steps that don't run into interrupts: where the code goes on that an external interrupt has come into."""

from __future__ import annotations

from hvproto import events
from hvproto.debugger.subject import Subject
from hvproto.errors import World
from hvproto.events import Event
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.hypervisor import REASONS


class InterruptedCode:
    """Knows of each external interrupt: one that the processor takes, one that the hypervisor delivers or leaves for.

    What it remembers is the instruction that was to come next, and the world that it is of.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._wanted = False
        self._goes_on: tuple[int, World] | None = None
        deliver = subject.processor.interrupt

        def interrupt(vector: int) -> None:
            self._note(subject.processor.code_address, subject.world)
            deliver(vector)

        subject.processor.interrupt = interrupt  # type: ignore[method-assign]

    def begin(self, wanted: bool) -> None:
        """For the steps to come: whether interrupts matter."""
        self._wanted = wanted
        self._goes_on = None

    def is_left(self, address: int) -> bool:
        """Whether the processor, before the instruction at this linear address, is still in a handler."""
        if self._goes_on is None:
            return False
        if self._goes_on != (address, self._subject.world):
            return True
        self._goes_on = None
        return False

    def on_event(self, event: Event) -> None:
        guest = self._subject.guest if self._wanted else None
        match event:
            case events.Recoupled() if guest is not None and event.reason == REASONS[Leave.INTERRUPT]:
                self._note(guest.where().eip, World.GUEST)
            case events.ExceptionTaken() if event.detail == "interrupt" and event.eip is not None:
                self._note(event.eip, World.GUEST)

    def _note(self, address: int, world: World) -> None:
        if self._wanted and self._goes_on is None:
            self._goes_on = address, world
