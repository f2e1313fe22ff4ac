"""What a run amounted to, in numbers: a subscriber that only counts."""

from __future__ import annotations

from collections import Counter

from hvproto import events
from hvproto.errors import EXCEPTION_NAMES
from hvproto.events import Event

SOFTWARE_INTERRUPT = "software interrupt"
INTERRUPT = "interrupt"


def vector_name(event: events.ExceptionTaken) -> str:
    """What an event of the guest is called: an exception's mnemonic, INT n, or an interrupt from outside.

    >>> vector_name(events.ExceptionTaken(0, 0x80, None, "reflect", 0, None, "software interrupt"))
    'int 0x80'
    """
    if event.detail == SOFTWARE_INTERRUPT:
        return f"int {event.vector:#x}"
    if event.detail == INTERRUPT:
        return f"interrupt, vector {event.vector:#x}"
    return EXCEPTION_NAMES.get(event.vector, f"vector {event.vector:#x}")


class Counts:
    """Numbers of a run so far. ``at`` is the virtual time of the last event, in cycles."""

    def __init__(self) -> None:
        self.at = 0
        self.decouplings = 0
        self.recouplings = 0
        self.temporary = 0
        self.reasons: Counter[str] = Counter()
        self.settings: dict[str, None] = {}
        self.exceptions: Counter[tuple[str, str]] = Counter()
        """By route (handle, reflect, direct) and name."""
        self.functions: Counter[str] = Counter()
        self.table_writes = 0
        self.no_conflicts = 0
        self.conflicts = 0
        self.relocations = 0
        self.places: set[int] = set()
        self.end: events.Shutdown | None = None

    def to_json(self) -> dict[str, object]:
        """The numbers as JSON has them, names in a fixed order."""
        exceptions: dict[str, dict[str, int]] = {}
        for (route, name), number in sorted(self.exceptions.items()):
            exceptions.setdefault(route, {})[name] = number
        return {
            "decouplings": self.decouplings,
            "recouplings": self.recouplings,
            "temporary_recouplings": self.temporary,
            "recoupled_for": dict(sorted(self.reasons.items())),
            "settings": list(self.settings),
            "exceptions": exceptions,
            "host_functions": dict(sorted(self.functions.items())),
            "table_writes": self.table_writes,
            "no_conflicts": self.no_conflicts,
            "conflicts": self.conflicts,
            "relocations": self.relocations,
            "places": len(self.places),
        }

    def on_event(self, event: Event) -> None:
        self.at = max(self.at, event.at)
        match event:
            case events.Decoupled():
                self.decouplings += 1
                self.settings.update(dict.fromkeys(event.settings))
            case events.Recoupled():
                self.recouplings += 1
                self.temporary += event.temporary
                self.reasons[event.reason] += 1
            case events.ExceptionTaken():
                self.exceptions[event.route, vector_name(event)] += 1
            case events.HostFunction(phase="end"):
                self.functions[event.name] += 1
            case events.PageTableWrite():
                self.table_writes += 1
            case events.NoConflict():
                self.no_conflicts += 1
            case events.Conflict():
                self.conflicts += 1
            case events.Relocated():
                self.relocations += 1
                self.places |= {event.old, event.new}
            case events.Shutdown():
                self.end = event
            case _:
                pass
