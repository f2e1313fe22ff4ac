"""One 4-level page table of the hypervisor's: what the processor walks while the guest runs (SDM vol. 3, 4.5).

Whatever mode a guest is in, its view is a 4-level table; a guest of 32 bits has all of its linear space below 4 GiB.
Upper levels permit everything, so that the last level alone decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hvproto.addresses import HPA, PAGE_SHIFT
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.ram_arrays import Entries64, rows64
from hvproto.processor.paging import NX, A, P, U, W

MIRRORED = 1 << 9
"""Software bit (ignored by the processor): the guest maps this page, hidden or not."""
REGION = 1 << 10
"""Software bit: a page of the hypervisor's region."""
ADDRESS = 0x000F_FFFF_FFFF_F000
DATA = NX | U | MIRRORED
"""In each entry for a page of the guest's that isn't fetched from; ..."""
SHOWN = DATA | P | A
"""... and that the guest has accessed."""
PAGES = 1 << 36
"""Pages of the linear space; of a canonical address, bits 12 to 47 say which."""
SLOT_SHIFT = 9
SLOT_PAGES = 1 << SLOT_SHIFT
"""A *slot* is what one page table of a view maps: 512 pages, 2 MiB."""
_INDEX = SLOT_PAGES - 1
_BEHIND_4_GIB = 4
"""The entry of the first pointer table for the GiB from there on."""
_UPPER = P | W | U | A
_SIGN = PAGES >> 1
_SIGN_EXTENSION = 0xFFFF << 48


def page_number(linear: int) -> int:
    """The number of a page in the 2^36 of the linear space.

    >>> hex(page_number(0xFFFF_8000_0000_0000))
    '0x800000000'
    """
    return linear >> PAGE_SHIFT & PAGES - 1


def canonical(page: int) -> int:
    """The linear address of a page number, bits 48 to 63 like bit 47.

    >>> hex(canonical(0x8_0000_0000)), hex(canonical(0x10))
    ('0xffff800000000000', '0x10000')
    """
    return page << PAGE_SHIFT | (_SIGN_EXTENSION if page & _SIGN else 0)


class _Upper:
    """A table above the last level: its frame, and the numbers of the tables that it points to."""

    __slots__ = ("children", "frame")

    def __init__(self, frame: HPA) -> None:
        self.frame = frame
        self.children: set[int] = set()


class View:
    """A page table that has only the tables that it needs: an empty one goes back to the pool.

    ``wraps``: the GiB behind 4 GiB is the first one again. It is where, in the environment of long mode, an access
    of 32-bit code arrives that begins below 4 GiB and ends beyond.
    """

    def __init__(self, ram: memoryview, pool: Pool, *, wraps: bool = False) -> None:
        self._words = ram.cast("Q")
        self._rows = rows64(ram)
        self._pool = pool
        self.wraps = wraps
        self.root = pool.allocate()
        self.changes = 0
        """Goes up with every change to an entry that was present: what was read of such entries before may be wrong.
        Only a page that comes to be open for stores doesn't always count (`hidden_faults`)."""
        self._tables: dict[int, HPA] = {}
        """By slot number (linear bits 21 to 47)."""
        self._levels: tuple[dict[int, _Upper], ...] = ({}, {}, {0: _Upper(self.root)})
        """Page directories by linear bits 30 to 47, pointer tables by bits 39 to 47, the root."""

    # -- single entries ----------------------------------------------------------------------

    def set(self, linear: int, entry: int) -> int:
        """Write the entry for a page; returns what was there before."""
        page = linear >> PAGE_SHIFT & PAGES - 1
        table = self._tables.get(page >> SLOT_SHIFT)
        if table is None:
            if not entry:
                return 0
            table = self._table(page >> SLOT_SHIFT)
        at = (table >> 3) + (page & _INDEX)
        old = self._words[at]
        self._words[at] = entry
        if old & P:
            self.changes += 1
        return old

    def exchange(self, page: int, entry: int) -> int:
        """Write the entry for a page number; what was there before. -1, and nothing done, if it takes a new table."""
        table = self._tables.get(page >> SLOT_SHIFT)
        if table is None:
            return -1 if entry else 0
        at = (table >> 3) + (page & _INDEX)
        old = self._words[at]
        self._words[at] = entry
        if old & P:
            self.changes += 1
        return old

    def get(self, linear: int) -> int:
        page = linear >> PAGE_SHIFT & PAGES - 1
        table = self._tables.get(page >> SLOT_SHIFT)
        return 0 if table is None else self._words[(table >> 3) + (page & _INDEX)]

    def entries(self) -> Iterator[tuple[int, int]]:
        """(canonical linear address, entry) of all that isn't zero, in order of address bits 0 to 47."""
        for slot in sorted(self._tables):
            row = self._rows[self._tables[slot] >> PAGE_SHIFT]
            for index in np.flatnonzero(row).tolist():
                yield canonical(slot << SLOT_SHIFT | index), int(row[index])

    # -- many at once ------------------------------------------------------------------------

    def put(self, page: int, entries: Entries64) -> None:
        """Write the entries for pages in a row from a page number on: as `set` does one by one."""
        self.changes += 1
        end = page + len(entries)
        for slot in range(page >> SLOT_SHIFT, end + _INDEX >> SLOT_SHIFT):
            start = slot << SLOT_SHIFT
            part = entries[max(start - page, 0) : start + SLOT_PAGES - page]
            table = self._tables.get(slot)
            if table is None:
                if not part.any():
                    continue
                table = self._table(slot)
            at = max(page - start, 0)
            self._rows[table >> PAGE_SHIFT, at : at + len(part)] = part

    def store(self, slots: Sequence[int], rows: Entries64) -> None:
        """Write whole page tables: one row of 512 entries for each of the (distinct) slots."""
        self.changes += 1
        used: list[bool] = np.any(rows, axis=1).tolist()
        if not all(used):
            for slot, needed in zip(slots, used, strict=True):
                if not needed and slot in self._tables:
                    self._release_table(slot)
            slots = [slot for slot, needed in zip(slots, used, strict=True) if needed]
            rows = rows[np.array(used)]
        if slots:
            frames = [self._tables[slot] if slot in self._tables else self._table(slot) for slot in slots]
            self._rows[np.array(frames) >> PAGE_SHIFT] = rows

    def clear(self, linear: int, size: int) -> None:
        """Forget the guest's entries in a range; those of the region stay. Costs what the view has there."""
        self.changes += 1
        first = linear >> PAGE_SHIFT & PAGES - 1
        end = first + (size >> PAGE_SHIFT)
        for slot in self._slots(first >> SLOT_SHIFT, end + _INDEX >> SLOT_SHIFT):
            start = slot << SLOT_SHIFT
            row = self._rows[self._tables[slot] >> PAGE_SHIFT]
            part = row[max(first - start, 0) : min(end - start, SLOT_PAGES)]
            part[part & REGION == 0] = 0
            if not row.any():
                self._release_table(slot)

    def trim(self, linear: int) -> None:
        """Give the page table for an address back to the pool if nothing is in it."""
        slot = linear >> PAGE_SHIFT + SLOT_SHIFT & (PAGES >> SLOT_SHIFT) - 1
        table = self._tables.get(slot)
        if table is not None and not self._rows[table >> PAGE_SHIFT].any():
            self._release_table(slot)

    def release(self) -> None:
        """Give everything back; the view is empty from now on, and has no root."""
        self.changes += 1
        for frame in self._tables.values():
            self._pool.release(frame)
        for level in self._levels:
            for upper in level.values():
                self._pool.release(upper.frame)
            level.clear()
        self._tables.clear()

    # -- tables ------------------------------------------------------------------------------

    def row_of(self, slot: int) -> int:
        """Where a slot's page table begins in RAM, in words of 8 bytes; 0 if it has none."""
        return self._tables.get(slot, 0) >> 3

    def _slots(self, first: int, end: int) -> list[int]:
        """The slots of [first, end) that have a table, in order."""
        if end - first <= 64:
            return [slot for slot in range(first, end) if slot in self._tables]
        numbers = [0]
        for depth in (2, 1, 0):
            low, high = first >> 9 * depth, (end - 1) >> 9 * depth
            numbers = [
                child
                for number in numbers
                for child in sorted(self._levels[depth][number].children)
                if low <= child <= high
            ]
        return numbers

    def _table(self, slot: int) -> HPA:
        """Make the table of a slot that has none."""
        upper = self._upper(0, slot >> SLOT_SHIFT)
        frame = self._pool.allocate()
        self._tables[slot] = frame
        self._link(upper, slot, frame)
        return frame

    def _upper(self, depth: int, number: int) -> _Upper:
        found = self._levels[depth].get(number)
        if found is None:
            above = self._upper(depth + 1, number >> SLOT_SHIFT)
            found = self._levels[depth][number] = _Upper(self._pool.allocate())
            self._link(above, number, found.frame)
        return found

    def _link(self, upper: _Upper, number: int, frame: HPA) -> None:
        upper.children.add(number)
        self._point(upper, number, frame | _UPPER)

    def _point(self, upper: _Upper, number: int, entry: int) -> None:
        self._words[(upper.frame >> 3) + (number & _INDEX)] = entry
        if self.wraps and number == 0 and upper is self._levels[1].get(0):
            self._words[(upper.frame >> 3) + _BEHIND_4_GIB] = entry

    def _release_table(self, slot: int) -> None:
        """Take a table out, and the tables above it that then point to nothing; the root stays."""
        self._pool.release(self._tables.pop(slot))
        number = slot
        for depth, level in enumerate(self._levels):
            upper = level[number >> SLOT_SHIFT]
            upper.children.discard(number)
            self._point(upper, number, 0)
            if upper.children or depth == 2:
                return
            number >>= SLOT_SHIFT
            del level[number]
            self._pool.release(upper.frame)
