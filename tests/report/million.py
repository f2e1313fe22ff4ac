"""A long column of events as a run has them, for what must stay usable at any length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from hvproto import events
from hvproto.events import Event

SETTINGS = ("IDTR", "GDTR", "LDTR", "TR", "CR0", "CR3", "CR4", "EFER")
TOP = 0xFFFF_0000


def long_run(number: int) -> Iterator[Event]:
    """So many events; with stays, exits and moves of the region."""
    return islice(_stays(), number)


def _stays() -> Iterator[Event]:
    at, place = 1000, TOP
    for stay in count(1):
        at += 37 + stay % 91
        for number, name in enumerate(SETTINGS):
            yield events.SettingSaved(at, name, number, f"{stay % 50:x}", 0x1000 + number)
        for name in SETTINGS:
            yield events.SettingReplaced(at, name, f"{stay % 50:x}", "1", "hypervisor")
        yield events.Decoupled(at, SETTINGS, 0x1000, 0)
        if stay % 60 == 1:
            yield events.GuestMappings(at, place, 6, 1 << 32, ((0, 0x1000), (TOP + 0x6000, 1 + stay % 3)))
        for turn in range(20):
            at += 11 + stay * turn % 97
            linear = (stay * 0x1000 * turn) % (1 << 32)
            yield events.ExceptionTaken(at, 14, 0, "handle" if turn % 5 else "reflect", linear, linear, "", 6)
        if stay % 3 == 0:
            new = TOP - (stay * 0x3000) % (1 << 31)
            yield events.PageTableWrite(at, 0x1000 + stay % 0x1000, 4, stay)
            yield events.Conflict(at, place, place, "a store")
            yield events.Relocated(at, place, new, 6)
            place = new
        at += 33
        for number, name in enumerate(SETTINGS):
            yield events.SettingRestored(at, name, "1", f"{stay % 50:x}", 0x1000 + number)
        yield events.Recoupled(at, "an interrupt for the host", False)
