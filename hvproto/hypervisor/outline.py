"""What a guest maps, told now and then: how its mappings close in on the region."""

from __future__ import annotations

import numpy as np

from hvproto import events
from hvproto.addresses import PAGE_SHIFT
from hvproto.events import EventBus
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.ram_arrays import Numbers
from hvproto.hypervisor.view import page_number

MOST_RUNS = 128
"""In one event; narrower gaps are closed until there are no more."""
PART = 64
"""A look comes after at least this part of all changes so far: after a million of them it was some 700 looks. One at
1024 page tables takes some 5 ms."""


class Outline:
    """Of one address space. Looks are counted by changes, not by time: so they are the same on every engine."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self.begun = False
        """Whether anybody has asked for a look so far."""
        self._changes = self._since = 0

    def show(self, now: int, space: FreeSpace, region: int, pages: int, changes: int) -> None:
        """Emit what is mapped, after so many changes more, unless nobody wants it or too few have come together."""
        first, self.begun = not self.begun, True
        self._changes += changes
        self._since += changes
        if not first and self._since * PART < self._changes:
            return
        self._since = 0
        if not self._bus.wants(events.GuestMappings):
            return
        taken = joined(space.taken(), page_number(region))
        runs = tuple((start << PAGE_SHIFT, end - start) for start, end in taken.tolist())
        self._bus.emit(events.GuestMappings(now, region, pages, space.pages << PAGE_SHIFT, runs))


def joined(taken: Numbers, region: int, most: int = MOST_RUNS) -> Numbers:
    """Rows (first, end) in order, of which neighbours are made one until there are at most so many.

    The widest gaps stay, and that which the page ``region`` is in.

    >>> joined(np.array([[0, 2], [2, 3], [9, 10], [11, 12], [40, 50]]), 10, most=3).tolist()
    [[0, 10], [11, 12], [40, 50]]
    """
    if not len(taken):
        return taken
    gaps = taken[1:, 0] - taken[:-1, 1]
    width = gaps.copy()
    width[(taken[:-1, 1] <= region) & (region < taken[1:, 0])] = np.iinfo(np.int64).max
    kept = np.sort(np.argsort(-width, kind="stable")[: most - 1])
    kept = kept[gaps[kept] > 0]
    return np.stack((np.append(taken[0, 0], taken[kept + 1, 0]), np.append(taken[kept, 1], taken[-1, 1])), axis=1)
