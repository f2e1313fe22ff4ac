"""Who has the processor, and from when on, as the events say it: a lane for the host, the hypervisor and each guest."""

from __future__ import annotations

from typing import NamedTuple

from hvproto import events
from hvproto.errors import World
from hvproto.events import Event

HOST, HYPERVISOR, FIRST_GUEST = 0, 1, 2

_ITS_ROUTES = ("handle", "reflect")
"""Of an exception: the others are the processor's own way, or the host's."""


class Switch(NamedTuple):
    """A world gets the processor at a cycle, before or after the event that says so."""

    at: int
    lane: int
    after: bool


class Lanes:
    """Follows the events of a run from its beginning, where the host has the processor.

    >>> lanes = Lanes()
    >>> lanes.follow(events.Decoupled(100, ("CR3",), 0, 0))
    (2, (Switch(at=100, lane=1, after=False), Switch(at=100, lane=2, after=True)))
    >>> lanes.follow(events.ExceptionTaken(130, 14, 0, "handle", 0, 0, "", cycles=6))
    (1, (Switch(at=124, lane=1, after=False), Switch(at=130, lane=2, after=True)))
    """

    def __init__(self) -> None:
        self.holder = HOST
        """The lane that has the processor now."""
        self._guest = FIRST_GUEST

    def follow(self, event: Event) -> tuple[int, tuple[Switch, ...]]:
        """The lane that an event belongs to, and the switches that it is."""
        before, at = self.holder, event.at
        match event:
            case events.SettingSaved() | events.SettingReplaced() | events.SettingRestored():
                return HYPERVISOR, self._gets(HYPERVISOR, at)
            case events.Decoupled():
                self._guest = FIRST_GUEST + event.guest
                begin = self._gets(HYPERVISOR, at)
                return self._guest, (*begin, *self._gets(self._guest, at, after=True))
            case events.Recoupled():
                begin = self._gets(HYPERVISOR, at)
                return HOST, (*begin, *self._gets(HOST, at, after=True))
            case events.ExceptionTaken() if event.route in _ITS_ROUTES:
                begin = self._gets(HYPERVISOR, at - event.cycles)
                return HYPERVISOR, (*begin, *self._gets(before, at, after=True))
            case (
                events.PageTableWrite()
                | events.NoConflict()
                | events.Conflict()
                | events.Relocated()
                | events.GuestMappings()
            ):
                begin = self._gets(HYPERVISOR, at)
                return HYPERVISOR, (*begin, *self._gets(before, at, after=True))
            case events.GuestEntered():
                self._guest = FIRST_GUEST + event.guest
                return self._guest, self._gets(self._guest, at, after=True)
            case events.GuestLeft():
                return HOST, self._gets(HOST, at)
            case events.ExceptionTaken():
                return (self._guest if event.route == "direct" else HOST), ()
            case events.GuestHalted():
                return FIRST_GUEST + event.guest, ()
            case events.Shutdown():
                return {World.HOST: HOST, World.HYPERVISOR: HYPERVISOR}.get(World(event.world), self._guest), ()
            case events.HostFunction():
                return HOST, ()
            case _:
                return before, ()

    def _gets(self, lane: int, at: int, *, after: bool = False) -> tuple[Switch, ...]:
        if lane == self.holder:
            return ()
        self.holder = lane
        return (Switch(at, lane, after),)
