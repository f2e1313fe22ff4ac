"""Last-level page tables that were translated before: those of the next process are, but for its own, the same.

A kernel that maps all of memory in each process fills the same tables each time. To compare one with what it was, and
to copy what came of it, takes a fifth of the time of a translation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.ram_arrays import Entries64
from hvproto.hypervisor.view import SLOT_PAGES

MOST = 96
"""Tables that are kept, with 28 KiB for each of 1,024 entries."""
FEW = 8
"""So many aren't worth it."""

Table = tuple[int, int, int, int]
"""First slot, GPA, rights and NX of the levels above."""
Raw = np.ndarray[tuple[int, int], np.dtype[np.uint32 | np.uint64]]
Translate = Callable[[Sequence[Table], Raw], tuple[Entries64, Entries64, Entries64]]
"""Some tables and their content: the guest's leaf entries, the kernel view's rows and the user view's."""


class KnownTables:
    """Of one guest's memory."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._version = memory.version
        self._format: object = None
        self._places: dict[tuple[int, int, int], int] = {}
        """By (slot, rights, NX): the index in the arrays."""
        self._raw = np.empty((0, 0), np.uint32)
        self._rows: tuple[Entries64, ...] = ()

    def translated(
        self, kind: tuple[object, ...], part: Sequence[Table], raw: Raw, translate: Translate
    ) -> tuple[Entries64, ...]:
        """What ``translate`` gives, as arrays that are the caller's. ``kind``: all else that it depends on."""
        wide = raw.shape[1] // SLOT_PAGES
        if kind != self._format or self._memory.version != self._version:
            self._format, self._version = kind, self._memory.version
            self._places.clear()
            self._raw = np.empty((MOST, raw.shape[1]), raw.dtype)
            self._rows = tuple(np.empty((MOST, wide, SLOT_PAGES), np.uint64) for _ in range(3))
        keys = [(slot, rights, no_execute) for slot, _, rights, no_execute in part]
        if len(self._places) + sum(key not in self._places for key in keys) > MOST:
            self._places.clear()
        places = np.array([self._places.get(key, -1) for key in keys])
        known = places >= 0
        known[known] = (self._raw[places[known]] == raw[known]).all(axis=1)
        new = np.flatnonzero(~known).tolist()
        if new:
            for index in new:
                places[index] = self._places.setdefault(keys[index], len(self._places))
            self._raw[places[new]] = raw[new]
            for kept, rows in zip(self._rows, translate([part[index] for index in new], raw[new]), strict=True):
                kept[places[new]] = rows.reshape(-1, wide, SLOT_PAGES)
        return tuple(kept[places].reshape(-1, SLOT_PAGES) for kept in self._rows)
