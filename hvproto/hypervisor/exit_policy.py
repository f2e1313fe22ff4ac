"""Who is asked about an exit of a mirrored guest: the user's handlers, and the route of its vector.

First come the handlers, in the order in which they were added, until one decides. Then comes the hypervisor: what
isolation and the mirror need - hidden page faults, privileged and sensitive instructions, gates that are closed to ring
3 - it always does itself. What is left is the guest's own event, and goes by its vector's route: HYPERVISOR and GUEST
reflect it to the guest's own handler, HOST has the guest leave and hands it to the host. A vector routed to GUEST
is nobody else's affair: no handler is asked about it.

An exception that arises while another is being delivered belongs to that delivery, and has no route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING

from hvproto import events
from hvproto.errors import HookError
from hvproto.hypervisor.exit_view import DEFAULT, Answer, Decision, EndGuest, Exit, ExitKind, Handler, Inject
from hvproto.hypervisor.exits import BREAKPOINT, GENERAL_PROTECTION, IDT_ERROR, OVERFLOW, PAGE_FAULT
from hvproto.hypervisor.plan import VECTORS, Provider, check_route
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest


class Routes(MutableMapping[int, Provider]):
    """The route of each vector (0-255) of one guest; HYPERVISOR unless said otherwise.

    A change is in effect from the next exit on. Raises PlanError for what can't be routed.
    """

    def __init__(self) -> None:
        self.changed: dict[int, Provider] = {}
        """Those that are another."""

    def __getitem__(self, vector: int) -> Provider:
        if not 0 <= vector < VECTORS:
            raise KeyError(vector)
        return self.changed.get(vector, Provider.HYPERVISOR)

    def __setitem__(self, vector: int, provider: Provider) -> None:
        check_route(vector, provider)
        if provider is Provider.HYPERVISOR:
            self.changed.pop(vector, None)
        else:
            self.changed[vector] = provider

    def __delitem__(self, vector: int) -> None:
        self[vector] = Provider.HYPERVISOR

    def __iter__(self) -> Iterator[int]:
        return iter(range(VECTORS))

    def __len__(self) -> int:
        return VECTORS


class ExitPolicy:
    """Handlers and routes of one guest."""

    def __init__(self, guest: MirroredGuest) -> None:
        self._guest = guest
        self.routes = Routes()
        self.handlers: tuple[Handler, ...] = ()
        self.event: Exit | None = None
        """What the host is to be told, or has been told and not answered."""
        self._answer: Answer = None
        self._told = False
        guest.exits.hand_over = self._hand_over

    # -- handlers ----------------------------------------------------------------------------

    def asks(self, vector: int, error_code: int, *, trapped: bool = False) -> bool:
        """Ask the handlers about an exit that has just come in; False if one of them has dealt with it.

        ``trapped``: the guest stands before a sensitive instruction, for which vector 13 stands. Raises HookError.
        """
        if not self.handlers:
            return True
        handlers = self.handlers
        seen = self._describe(vector, error_code, trapped=trapped)
        if self.routes[seen.vector] is Provider.GUEST:
            return True
        cpu = self._guest.cpu
        after, cpu.eip = cpu.eip, seen.eip
        for handler in handlers:
            answer = _ask(handler, seen)
            if answer is not None and answer is not DEFAULT:
                self._tell(seen, "handle", f"{answer} by {_name(handler)}")
                self._carry_out(seen, answer)
                return False
        cpu.eip = after
        return True

    def _describe(self, vector: int, error_code: int, *, trapped: bool) -> Exit:
        """The exit as the guest's programmer would put it: an INT n is an INT n, whatever gate it met."""
        guest, cpu = self._guest, self._guest.cpu
        if trapped:
            return Exit(guest, ExitKind.INSTRUCTION, GENERAL_PROTECTION, 0, cpu.eip)
        if vector >= 32 or vector in (BREAKPOINT, OVERFLOW):
            length = guest.exits.length_behind(vector)
            return Exit(guest, ExitKind.SOFTWARE, vector, None, cpu.wrapped(cpu.eip - length), length=length)
        seen = Exit(
            guest, ExitKind.EXCEPTION, vector, error_code if vector in VECTORS_WITH_ERROR_CODE else None, cpu.eip,
            guest.machine.processor.cr2 if vector == PAGE_FAULT else None,
        )  # fmt: skip
        if vector == GENERAL_PROTECTION and error_code & IDT_ERROR and seen.instruction is not None:
            length = seen.instruction.size
            return Exit(guest, ExitKind.SOFTWARE, error_code >> 3, None, cpu.eip, length=length)
        return seen

    def _carry_out(self, seen: Exit, answer: Answer) -> None:
        guest, cpu = self._guest, self._guest.cpu
        match answer:
            case Decision.HANDLED:
                if seen.kind is ExitKind.SOFTWARE and cpu.eip == seen.eip:
                    seen.skip()  # the interrupt has been served
            case Decision.REFLECT if seen.kind is ExitKind.SOFTWARE:
                guest.exits.deliver_software(seen.vector, seen.length)
            case Decision.REFLECT:
                guest.exits.deliver(seen.vector, seen.error_code, seen.address)
            case Inject(vector, error_code, address):
                guest.exits.deliver(vector, error_code, address)
            case EndGuest(reason, status):
                guest.end(status, reason)
            case _:
                raise AssertionError(answer)

    # -- events for the host -----------------------------------------------------------------

    def _hand_over(self, vector: int, error_code: int | None, address: int | None, length: int) -> bool:
        """Whether an event of the guest's own goes to the host; ``length`` is that of an INT n, or 0."""
        if self.routes[vector] is not Provider.HOST:
            return False
        kind = ExitKind.SOFTWARE if length else ExitKind.EXCEPTION
        self.event = Exit(self._guest, kind, vector, error_code, self._guest.cpu.eip, address, length=length)
        self._told, self._answer = False, None
        self._tell(self.event, "host", "for the host")
        return True

    @property
    def waiting(self) -> bool:
        """Whether there is something that the host has to be told."""
        return self.event is not None and not self._told

    def take_event(self) -> Exit:
        """What the host is being told now."""
        assert self.event is not None
        self._told = True
        return self.event

    def answer_event(self, answer: Answer) -> None:
        """What the host says: carried out when the guest goes on. Without an answer the event is reflected.

        Raises ValueError if there is no event that was handed over.
        """
        if self.event is None:
            raise ValueError("no event of the guest's waits for an answer")
        if answer is not None and not isinstance(answer, Decision | Inject | EndGuest):
            raise ValueError(f"{answer!r} is no answer to an event")
        self._answer = answer

    def finish_event(self) -> None:
        """The guest has the processor again: do with the event what the host has said."""
        seen, answer = self.event, self._answer
        if seen is None or not self._told:
            return
        self.event = self._answer = None
        self._carry_out(seen, Decision.REFLECT if answer is None or answer is DEFAULT else answer)

    # -- what happened -----------------------------------------------------------------------

    def _tell(self, seen: Exit, route: str, detail: str) -> None:
        guest = self._guest
        guest.bus.emit(
            events.ExceptionTaken(
                guest.machine.processor.now, seen.vector, seen.error_code, route, seen.eip, seen.address, detail,
                guest.number, guest.exits.told_cycles(),
            )
        )  # fmt: skip


def _ask(handler: Handler, seen: Exit) -> Answer:
    try:
        answer = handler(seen)
    except Exception as problem:
        reason = f"the exit handler {_name(handler)} raised {type(problem).__name__}: {problem}"
        raise HookError(seen.guest.where(), reason) from problem
    if answer is not None and not isinstance(answer, Decision | Inject | EndGuest):
        raise HookError(
            seen.guest.where(), f"the exit handler {_name(handler)} returned {answer!r}",
            "An exit handler returns None, DEFAULT, HANDLED, REFLECT, Inject(vector, error_code) or STOP.",
        )  # fmt: skip
    return answer


def _name(handler: Callable[..., object]) -> str:
    return getattr(handler, "__qualname__", type(handler).__name__)
