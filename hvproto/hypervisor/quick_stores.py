"""Single stores to page tables, followed in the middle of the run that they are made in: step 44 in its simplest case.

A store to an entry that may be cached ends the run at the next basic block, as a rule, and is followed there: some 65 Y
(of an empty hook). Where the page is nothing but last-level tables that map no page of the region, all that can follow
from it is another entry in the mirrors, and a page of the TLB to be forgotten. That is done here at once, for 9 Y, and
the run goes on. What there is to know about the page is worked out once, and where it is said to machine code, that
follows the next stores by itself, for less than 1 Y (`simple_tables`). Whoever listens hears of the store as ever: then
it goes the plain way, too, and finds nothing left to do. So the guest sees the same, at the same time, either way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hvproto.addresses import GPA, PAGE_MASK, PAGE_SHIFT
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror, canonical
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.tables import GuestTables
from hvproto.hypervisor.view import SHOWN
from hvproto.processor.deferred_stores import Follower
from hvproto.processor.engine import Engine
from hvproto.processor.paging import A


class Place(NamedTuple):
    """What a last-level table is for one of the mirrors."""

    mirror: Mirror
    page: int
    """The number of the first page that it maps."""
    above: int
    """W, U and A combined of the entries that lead to it."""
    no_execute: int


class QuickStores:
    """Of one guest. ``enabled`` is for comparing it with the plain way."""

    def __init__(
        self,
        engine: Engine,
        ram: memoryview,
        memory: GuestMemory,
        monitor: Monitor,
        tables: GuestTables,
        follow_deferred: Callable[[], None],
        heard: Callable[[], bool],
    ) -> None:
        """``follow_deferred``: does so with what waits. ``heard``: whether anybody listens to what a store does."""
        self._follower = Follower(self.follow, engine.fail)
        self._deferred = engine.deferred
        self._follow_deferred = follow_deferred
        self._flush_page, self._decide_again = engine.flush_page, engine.decide_again
        self._known = engine.simple_tables
        self._ram_address = engine.ram_address
        self._ram = ram
        self._memory = memory
        self._monitor = monitor
        self._tables = tables
        self._heard = heard
        self.enabled = True
        self.says = True
        """Whether machine code is told what it can follow by itself; this also is for comparing."""
        self.count = self.unasked_count = 0
        """How many were followed, and how many of them with nobody asked."""
        self._last = 0
        """The frame of the table that was followed last."""
        self._present: Mirror | None = None
        self._version = 0
        self._pages: dict[int, tuple[int, tuple[Place, ...]]] = {}
        """By frame number of a table's page: size of its entries, and what it is, where that is simple."""

    def enter(self) -> None:
        """The guest gets the processor."""
        self._deferred.ask_to_follow(self._follower)
        if self._known is not None:
            self._known.start(self._followed, SHOWN)

    def leave(self) -> None:
        """... and somebody else gets it."""
        self._deferred.ask_to_follow(None)

    def update(self, present: Mirror) -> None:
        """The mirror that is loaded, before the guest goes on."""
        if present is not self._present:
            self._present = present
            self._pages.clear()  # some of the tables are idle now, or no longer

    def follow(self, physical: int, size: int, value: int) -> bool:
        """`Follow` of `DeferredStores`, which has found that the page is fit for it in every way that doesn't show."""
        self._decide_again()
        if not self.enabled or self._monitor.records:
            return False
        if self._version != self._tables.version:
            self._version = self._tables.version
            self._pages.clear()
        found = self._pages.get(physical >> PAGE_SHIFT)
        if found is None:
            found = self._look_at(physical & ~PAGE_MASK)
            if not found[1]:  # also where all of it is idle
                return False
            self._pages[physical >> PAGE_SHIFT] = found
        if self._deferred.waits:  # as after a store that ends the run: else who listens would change the time
            self._follow_deferred()
            if self._monitor.pending or self._version != self._tables.version:
                return False
        entry_size, places = found
        if size != entry_size:
            value = self._whole(physical, size, value, entry_size)
        number = (physical & PAGE_MASK) // entry_size
        for mirror, first, above, no_execute in places:
            page = first + number
            if not mirror.map_entry(page, value, above, no_execute):
                return False
            if mirror is self._present:
                self._flush_page(canonical(page))
        if self._heard():
            return False
        self.count += 1
        frame = physical & ~PAGE_MASK
        if frame == self._last and len(places) == 1:  # who follows one here and one there needn't take the time
            self._say(frame, entry_size, places[0])
        self._last = frame
        return True

    def _say(self, frame: int, entry_size: int, place: Place) -> None:
        """Have machine code follow the next stores to a table."""
        if self._known is None or not self.says or place.mirror is not self._present:
            return
        known = place.mirror.simple_table(frame, place.page, entry_size, place.above, self._ram_address)
        if known is not None:
            self._known.say(known)

    def _followed(self, count: int) -> None:
        """Machine code has followed so many stores, all of them to present entries of the mirror that is loaded."""
        self.count += count
        self.unasked_count += count
        if self._present is not None:
            self._present.kernel.changes += count
            self._present.user.changes += count

    def _whole(self, physical: int, size: int, value: int, entry_size: int) -> int:
        """An entry after a store to a part of it."""
        start = physical & -entry_size
        entry = bytearray(self._ram[start : start + entry_size])
        entry[physical - start : physical - start + size] = value.to_bytes(size, "little")
        return int.from_bytes(entry, "little")

    def _look_at(self, frame: int) -> tuple[int, tuple[Place, ...]]:
        gpa = self._memory.to_guest(frame)
        if gpa is not None and self._tables.is_idle(GPA(gpa)):
            return 1, ()
        places: list[Place] = []
        size = 1
        for mirror, page, entry_size in self._tables.last_level(GPA(-1) if gpa is None else gpa):
            above = mirror.rights_above(page)
            # An A bit that is clear yet can be set without a store; page 0 of 32 bits appears behind 4 GiB, too.
            if above is None or not above[0] & A or (not page and mirror.end == 1 << 32):
                return 1, ()
            places.append(Place(mirror, page, *above))
            size = entry_size
        return size, tuple(places)
