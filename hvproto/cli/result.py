"""What has come of a run or a boot, as one JSON object on stdout: for a pipe."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hvproto import events
from hvproto.cli.counts import Counts
from hvproto.cli.failures import INTERRUPTED, MEANINGS
from hvproto.cli.several import names_of
from hvproto.errors import HvprotoError, RunError, World
from hvproto.events import Event
from hvproto.hypervisor.session import Session
from hvproto.machine.machine import Machine

Facts = Callable[[], dict[str, object]]


@contextmanager
def printing(facts: Facts) -> Iterator[dict[str, object]]:
    """However what is inside ends, print an object: how it ended, then the ``facts``, which are asked for at the end.

    Inside, put into the dictionary what is known of a good end: ``status`` and ``reason``.
    """
    end: dict[str, object] = {}
    try:
        yield end
    except HvprotoError as error:
        _print(_end(error.exit_status, _reason(error), error), facts)
        raise
    except KeyboardInterrupt:
        _print(_end(INTERRUPTED, "interrupted", None), facts)
        raise
    status = end["status"]
    assert isinstance(status, int)
    _print(_end(status, str(end["reason"]), None), facts)


def _end(status: int, reason: str, error: HvprotoError | None) -> dict[str, object]:
    """The part that says how it ended, the same for every command."""
    known = error is not None or status in (0, INTERRUPTED)
    where = error.where if isinstance(error, RunError) else None
    return {
        "status": status,
        "meaning": MEANINGS[status] if known else "what the kernel itself ends with",
        "reason": reason,
        "error": None if error is None else type(error).__name__,
        "world": None if where is None else str(where.world),
        "where": None if where is None else str(where),
    }


def _reason(error: HvprotoError) -> str:
    return error.reason if isinstance(error, RunError) else str(error)


def _print(end: dict[str, object], facts: Facts) -> None:
    print(json.dumps({**end, **facts()}), flush=True)


def text_of(output: bytes | bytearray) -> str:
    """A kernel's bytes as JSON has them: a character for each, U+0000 to U+00FF, so that none is lost."""
    return output.decode("latin-1")


class RunResult:
    """Counts a run, all in all and guest by guest: a subscriber of events."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kinds: Counter[str] = Counter()
        self._all = Counts()
        self._each: defaultdict[int, Counts] = defaultdict(Counts)
        self._ends: dict[int, events.GuestHalted] = {}

    def on_event(self, event: Event) -> None:
        self._kinds[event.kind] += 1
        self._all.on_event(event)
        if isinstance(event, events.Shutdown):
            return
        # Without a number, an event is about the guest that the host has asked for last.
        number = getattr(event, "guest", self._session.hypervisor.present)
        self._each[number].on_event(event)
        if isinstance(event, events.GuestHalted):
            self._ends[number] = event

    @property
    def reason(self) -> str:
        """Why the machine ended."""
        return self._all.end.reason if self._all.end is not None else ""

    def facts(self) -> dict[str, object]:
        """What is known by now."""
        machine, hypervisor = self._session.machine, self._session.hypervisor
        return {
            "plan": hypervisor.plan.name,
            "cycles": machine.processor.now,
            "events": dict(sorted(self._kinds.items())),
            **self._all.to_json(),
            "host": {
                "path": machine.images[World.HOST].path,
                "output": text_of(machine.debug_output),
                "timer_interrupts": machine.board.pit.raised,
            },
            "guests": [self._guest(number, name) for number, name in enumerate(names_of(hypervisor.images))],
        }

    def _guest(self, number: int, name: str) -> dict[str, object]:
        hypervisor = self._session.hypervisor
        guest, failure, halted = hypervisor.guests.get(number), hypervisor.failures.get(number), self._ends.get(number)
        if failure is not None:
            status, end, reason = failure.exit_status, "failed", str(failure)
        elif halted is not None:
            status, end, reason = halted.status, "ended", halted.reason
        else:
            status, end, reason = None, "still running" if guest is not None else "never entered", ""
        return {
            "name": name,
            "path": hypervisor.images[number].path,
            "end": end,
            "status": status,
            "reason": reason,
            "error": None if failure is None else type(failure).__name__,
            "output": "" if guest is None else text_of(guest.output),
            **self._each[number].to_json(),
        }


def boot_facts(machine: Machine, path: str | None, printed: bytearray) -> dict[str, object]:
    """What is known of a bare machine: ``printed`` is what came from COM1 and port 0xe9, in order."""
    return {
        "kernel": path,
        "cycles": machine.processor.now,
        "output": text_of(printed),
        "serial": text_of(machine.serial_output),
        "debug_console": text_of(machine.debug_output),
        "screen": machine.screen.text.rstrip(),
        "timer_interrupts": machine.board.pit.raised,
        "unclaimed": [str(one) for one in machine.unclaimed],
        "complaints": [str(one) for one in machine.complaints.found],
    }
