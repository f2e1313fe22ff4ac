"""The way from an event of a guest's program to the guest's own handler and back, counted instruction by instruction.

Figure 1's layering against the substitution of settings (WO0250664, background): one guest, guests/compare.asm, runs
under each built-in plan, and a hook on every instruction counts what is executed between its labels. Nothing is
estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from hvproto import events
from hvproto.bundled import DEFAULT_HOST, kernel_path
from hvproto.events import Event
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.processor.settings import Setting

GUEST = "compare"
PLANS = ("application", "mirrored", "direct")
EVENTS = {"divide": "divide error", "fault": "page fault", "call": "system call", "timer": "timer interrupt"}
"""By the beginning of their labels in the guest."""
LIMIT = 60_000_000
"""Cycles; the slowest plan needs a tenth of it."""
_REPEATS = (b"\xf2", b"\xf3")


@dataclass(slots=True)
class Leg:
    """What lies between two instructions of the guest, neither of them counted.

    Of instructions only those in the emulation program's process and in the guest: those of other processes, which the
    host's scheduler may let run in between, belong to nobody's latency.
    """

    instructions: int = 0
    host: int = 0
    """Of these: the host's kernel's and the emulation program's."""
    hypervisor: int = 0
    """Of these: stubs in the hypervisor's region."""
    ring_changes: int = 0
    """Between two instructions, the one before and the one after the leg among them."""
    table_loads: int = 0
    """Values of CR3 that differ from the one before."""
    decisions: int = 0
    """Times that the hypervisor, Python, decided what becomes of an exception or interrupt."""
    couplings: int = 0
    """Decouplings and recouplings of the host."""

    def __add__(self, other: Leg) -> Leg:
        return Leg(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Leg)))


@dataclass(frozen=True, slots=True)
class Way:
    """There and back under one plan, in the round in which the host had the least to do with itself."""

    plan: str
    event: str
    there: Leg
    back: Leg

    @property
    def both(self) -> Leg:
        return self.there + self.back


def compare(plans: Sequence[str] = PLANS, *, engine: str | None = None) -> list[Way]:
    """Measure each event under each of these plans, in order. Raises RunError if the guest doesn't come through."""
    host, guest = load_image(kernel_path(DEFAULT_HOST)), load_image(kernel_path(GUEST))
    return [way for plan in plans for way in _measure(plan, host, guest, engine)]


def _measure(plan: str, host: Image, guest: Image, engine: str | None) -> list[Way]:
    session = Session(host, [guest], Plan.parse(plan), engine=engine)
    counter = _Counter(session, host, guest)
    session.bus.subscribe(counter.on_event)
    session.run(LIMIT)
    return [Way(plan, EVENTS[name], *min(rounds, key=_length)) for name, rounds in counter.rounds.items()]


def _length(legs: tuple[Leg, Leg]) -> int:
    return legs[0].instructions + legs[1].instructions


class _Counter:
    """Counts from the hook on every instruction; between the labels only."""

    def __init__(self, session: Session, host: Image, guest: Image) -> None:
        self._processor = session.machine.processor
        self._host = range(host.start, host.end)
        self._guest = range(guest.start, guest.end)
        self._others = host.symbols["worker_directory"]
        self._labels = {
            guest.symbols[f"{event}_{place}"]: (event, place)
            for event in EVENTS
            for place in ("from", "handler", "leave", "back")
        }
        self.rounds: dict[str, list[tuple[Leg, Leg]]] = {event: [] for event in EVENTS}
        self._event = ""
        self._leg = Leg()
        self._there: Leg | None = None
        self._ring = self._table = self._last = 0
        self._processor.engine.hear_code(self._on_code)

    def on_event(self, event: Event) -> None:
        match event:
            case events.Decoupled() | events.Recoupled():
                self._leg.couplings += 1
            case events.ExceptionTaken(route=route) if route != "direct":
                self._leg.decisions += 1

    def _on_code(self, address: int, _size: int) -> None:
        event, place = self._labels.get(address, ("", ""))
        if place == "from" and (event != self._event or self._there is None):  # else it is executed once more
            self._event, self._there = event, None
            self._begin(address)
        elif self._event:
            if event == self._event and place != "from":
                self._arrive(event, place, address)
            else:
                self._count(address)

    def _begin(self, address: int) -> None:
        self._leg = Leg()
        self._ring, self._table = self._processor.cpl, self._processor.control(Setting.CR3)
        self._last = address

    def _arrive(self, event: str, place: str, address: int) -> None:
        if place == "handler" and self._there is None:
            self._switches()
            self._there = self._leg
            self._begin(address)
        elif place == "leave":
            self._begin(address)
        elif place == "back" and self._there is not None:
            self._switches()
            self.rounds[event].append((self._there, self._leg))
            self._event, self._leg = "", Leg()

    def _switches(self) -> bool:
        """Whether this is an instruction that counts; changes of ring and page table do."""
        table = self._processor.control(Setting.CR3)
        if table != self._table:
            self._leg.table_loads += 1
            self._table = table
        if table == self._others:
            return False
        ring = self._processor.cpl
        if ring != self._ring:
            self._leg.ring_changes += 1
            self._ring = ring
        return True

    def _count(self, address: int) -> None:
        if not self._switches():
            return
        repeated = address == self._last and self._processor.peek_some(address, 1)[:1] in _REPEATS
        self._last = address
        if repeated:
            return  # REP: one instruction, however often it repeats
        leg = self._leg
        leg.instructions += 1
        if address in self._host:
            leg.host += 1
        elif address not in self._guest:
            leg.hypervisor += 1
