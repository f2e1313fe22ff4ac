"""Whole page tables mirrored at once: the guest's entries are gathered, translated and put into both views as arrays.

Every piece of the guest's mapping becomes rows of 512 *leaf entries* in one common form, that of a PAE page-table
entry: those of a 2-level table are widened, and a large page is written out as the entries that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hvproto.addresses import PAGE_SHIFT
from hvproto.hypervisor.guest_memory import HERE, GuestMemory
from hvproto.hypervisor.known_tables import FEW, MOST, KnownTables, Raw, Table
from hvproto.hypervisor.levels import Level
from hvproto.hypervisor.ram_arrays import Entries64
from hvproto.hypervisor.view import ADDRESS, MIRRORED, SLOT_PAGES
from hvproto.processor.paging import NX, A, D, P, U, W

ROWS_AT_ONCE = 64
"""256 KiB of entries in a piece: it stays in a processor's second-level cache, which makes it twice as fast."""
_KEPT = P | W | U | A | D | ADDRESS
_INDICES = np.arange(SLOT_PAGES, dtype=np.uint64) << PAGE_SHIFT
_NONE, _TWO, _FIVE, _PAGE_SHIFT = (np.uint64(number) for number in (0, 2, 5, PAGE_SHIFT))
_PRESENT, _ACCESSED, _DIRTY, _HERE, _ADDRESS = (np.uint64(bits) for bits in (P, A, D, HERE, ADDRESS))
_NUMBER = np.uint64(ADDRESS >> PAGE_SHIFT)
_ALWAYS = np.uint64(NX | U | MIRRORED)

Sink = Callable[[Sequence[int], Entries64, Entries64, Entries64], None]
"""(slots, the guest's leaf entries, the kernel view's rows, the user view's rows)."""


class Batch:
    """What is to be mirrored: page tables of the guest, and pieces of large pages or of unpaged memory."""

    def __init__(
        self, memory: GuestMemory, leaf: Level | None, *, write_protect: bool, known: KnownTables | None = None
    ) -> None:
        """``known``: where to look for tables that were translated before, and to leave these."""
        self._memory = memory
        self._known = known
        self._leaf = leaf
        self._write_protect = write_protect
        self._tables: list[Table] = []
        self._linear: list[tuple[int, int, int]] = []

    def add_table(self, slot: int, table: int, rights: int, no_execute: int) -> None:
        """A last-level table: first slot that it maps, its GPA, W|U|A combined over the levels above, NX or 0."""
        self._tables.append((slot, table, rights, no_execute))

    def add_linear(self, slot: int, gpa_page: int, flags: int) -> None:
        """512 pages in a row from a guest-physical page number on, with the flags of a leaf entry."""
        self._linear.append((slot, gpa_page, flags))

    def apply(self, sink: Sink) -> None:
        """Translate it all and hand it over, piece by piece."""
        wide = 1 if self._leaf is None or self._leaf.count == SLOT_PAGES else 2
        for start in range(0, len(self._tables), ROWS_AT_ONCE // wide):
            part = self._tables[start : start + ROWS_AT_ONCE // wide]
            raw = self._memory.tables([table for _, table, _, _ in part], 8 // wide)
            slots = [slot + number for slot, _, _, _ in part for number in range(wide)]
            if self._known is None or not FEW < len(self._tables) <= MOST:
                sink(slots, *self._all_of(part, raw))
            else:
                kind = self._leaf, self._write_protect
                entries, kernel, user = self._known.translated(kind, part, raw, self._all_of)
                sink(slots, entries, kernel, user)
        for start in range(0, len(self._linear), ROWS_AT_ONCE):
            pieces = self._linear[start : start + ROWS_AT_ONCE]
            first = np.array([gpa_page << PAGE_SHIFT | flags for _, gpa_page, flags in pieces], np.uint64)
            entries = first[:, None] + _INDICES
            sink([slot for slot, _, _ in pieces], entries, *self._translate(entries))

    def _all_of(self, part: Sequence[Table], raw: Raw) -> tuple[Entries64, Entries64, Entries64]:
        entries = self._leaf_entries(part, raw.astype(np.uint64))
        return entries, *self._translate(entries)

    def _leaf_entries(self, part: Sequence[Table], raw: Entries64) -> Entries64:
        """The leaf entries of some tables, permissions combined; 0 where one is absent or has a reserved bit set."""
        leaf = self._leaf
        assert leaf is not None
        absent = raw & P == 0
        if leaf.reserved:
            absent |= raw & leaf.reserved != 0
        kept = np.array([_KEPT & ~(W | U | A) | rights for _, _, rights, _ in part], np.uint64)
        entries: Entries64 = raw & (kept | np.uint64(leaf.no_execute))[:, None]
        entries |= np.array([no_execute for _, _, _, no_execute in part], np.uint64)[:, None]
        entries[absent] = 0
        return entries.reshape(-1, SLOT_PAGES)

    def _translate(self, entries: Entries64) -> tuple[Entries64, Entries64]:
        """The rows of the kernel's and the user's view; NX everywhere, see `Mirror` for what is open to fetches."""
        host = self._memory.lookup((entries >> _PAGE_SHIFT & _NUMBER).view(np.int64))
        host[entries & _PRESENT == 0] = 0
        there = _NONE - (host & _HERE)  # all ones, or 0
        accessed = entries & _ACCESSED
        common = host & _ADDRESS
        common |= accessed | accessed >> _FIVE  # A also makes it P
        common |= _ALWAYS
        dirty = entries & _DIRTY
        allowed = dirty & entries << _FIVE  # W is five bits below D
        user = common | allowed | allowed >> _FIVE
        user &= there & _NONE - (entries >> _TWO & _PRESENT)  # U
        if not self._write_protect:
            allowed = dirty  # a kernel without CR0.WP writes where it likes
        common |= allowed
        common |= allowed >> _FIVE
        common &= there
        return common, user
