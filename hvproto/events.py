"""What happens, as values: the only thing that goes up from the lower rooms.

Every event says when (``at``, virtual time in cycles). Those that belong to a step of the patent's
figures 2 and 4 carry the step's number, so that a trace can be laid beside the drawing. The JSON
form is one object a line, ``{"event": NAME, "step": N, "at": T, ...}``; fields may be added, never
renamed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Base: virtual time in cycles."""

    step: ClassVar[int | None] = None

    at: int

    @property
    def kind(self) -> str:
        """The event's name, as the JSON form gives it."""
        return type(self).__name__

    def to_json(self) -> str:
        """One line of JSON, keys in a fixed order."""
        values: dict[str, object] = {"event": self.kind, "step": self.step}
        values.update((name, getattr(self, name)) for name in field_names(type(self)))
        return json.dumps(values)


_FIELDS: dict[type[Event], tuple[str, ...]] = {}


def field_names(kind: type[Event]) -> tuple[str, ...]:
    """The fields of a kind of events, ``at`` first."""
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(field.name for field in fields(kind))
    return _FIELDS[kind]


@dataclass(frozen=True, slots=True)
class SettingSaved(Event):
    """Steps 24 and 26: a setting was read and written to the save area with its identification."""

    step = 26
    setting: str
    register_id: int
    value: str
    place: int
    """HPA of the record in the save area."""


@dataclass(frozen=True, slots=True)
class SettingReplaced(Event):
    """Step 28: the processor got another value for a setting."""

    step = 28
    setting: str
    old: str
    new: str
    provider: str
    """"guest" or "hypervisor"."""


@dataclass(frozen=True, slots=True)
class Decoupled(Event):
    """The host no longer has the processor for the functions of these settings."""

    step = 28
    settings: tuple[str, ...]
    host_eip: int
    guest: int = 0
    """The number of the guest that has it."""


@dataclass(frozen=True, slots=True)
class SettingRestored(Event):
    """Step 30: a setting was read back from memory and written to its register."""

    step = 30
    setting: str
    old: str
    new: str
    place: int


@dataclass(frozen=True, slots=True)
class Recoupled(Event):
    """The host has the processor again. ``reason`` says what for; a temporary recoupling ends in another Decoupled."""

    step = 30
    reason: str
    temporary: bool


@dataclass(frozen=True, slots=True)
class ExceptionTaken(Event):
    """An exception or interrupt of the guest. ``route``: handle (the hypervisor did), reflect (guest's own handler),
    direct (the processor called the guest's handler itself), host (guest's own handler, by way of the host's: plan
    `application`)."""

    vector: int
    error_code: int | None
    route: str
    eip: int | None
    """GVA of the instruction, or where it returns to for an interrupt; None where only the processor knows."""
    cr2: int | None = None
    detail: str = ""
    guest: int = 0
    """The number of the guest whose it is."""
    cycles: int = 0
    """Of virtual time that the hypervisor's own code in the region took of it; what Python does takes none."""


@dataclass(frozen=True, slots=True)
class PageTableWrite(Event):
    """Step 40: the guest wrote to one of its page tables."""

    step = 40
    gpa: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class Conflict(Event):
    """Step 42: what the guest mapped overlaps the region."""

    step = 42
    address: int
    """The first GVA that both want."""
    region: int
    cause: str


@dataclass(frozen=True, slots=True)
class NoConflict(Event):
    """Step 44: the write left the region alone; nothing moves."""

    step = 44
    gpa: int


@dataclass(frozen=True, slots=True)
class Relocated(Event):
    """Step 46: the region moved in the mirror. Addresses are GVAs of its first page."""

    step = 46
    old: int
    new: int
    pages: int


@dataclass(frozen=True, slots=True)
class GuestMappings(Event):
    """What the guest's page table maps, as it goes on with the processor: a look now and then, not every change.

    Narrow gaps are closed where there are very many; the one that the region is in never is.
    """

    region: int
    """GVA of the region's first page."""
    pages: int
    """Of the region."""
    end: int
    """Of the linear space: 2^32 or 2^48 bytes."""
    runs: tuple[tuple[int, int], ...]
    """(GVA of the first page, pages), from the lowest on; in 48 bits as positions, without sign extension."""


@dataclass(frozen=True, slots=True)
class GuestEntered(Event):
    """Plan `application`: the emulation program's process goes on as the guest; no setting is replaced for that."""

    guest: int


@dataclass(frozen=True, slots=True)
class GuestLeft(Event):
    """Plan `application`: the emulation program has the process again, by way of the host's kernel."""

    guest: int


@dataclass(frozen=True, slots=True)
class HostFunction(Event):
    """A function that the recoupled host does for the guest; ``phase`` is begin or end."""

    name: str
    phase: str
    detail: str
    guest: int = 0


@dataclass(frozen=True, slots=True)
class GuestHalted(Event):
    """The guest ended: HLT with interrupts off, or the debug exit port."""

    guest: int
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shutdown(Event):
    """The machine ended."""

    world: str
    status: int
    reason: str


Subscriber = Callable[[Event], None]


class EventBus:
    """Hands every event to its subscribers, in the order in which they subscribed.

    An event that nobody wants isn't made: who emits many asks `wants` first.
    """

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        """Always the same list; whoever has thousands of events a second looks whether it is empty before all else."""
        self._kinds: dict[Subscriber, tuple[type[Event], ...]] = {}
        """Of those that want some kinds only."""

    def subscribe(self, subscriber: Subscriber, *kinds: type[Event]) -> None:
        """Have a function called with every event from now on, or with those of some kinds."""
        self.subscribers.append(subscriber)
        if kinds:
            self._kinds[subscriber] = kinds

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self.subscribers.remove(subscriber)
        self._kinds.pop(subscriber, None)

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody would get an event of this kind."""
        if not self.subscribers:
            return False
        return len(self._kinds) < len(self.subscribers) or any(kind in kinds for kinds in self._kinds.values())

    def wants_any(self, *kinds: type[Event]) -> bool:
        """Whether anybody would get an event of one of these kinds."""
        return bool(self.subscribers) and any(map(self.wants, kinds))

    def emit(self, event: Event) -> None:
        for subscriber in tuple(self.subscribers):
            kinds = self._kinds.get(subscriber)
            if kinds is None or type(event) in kinds:
                subscriber(event)
