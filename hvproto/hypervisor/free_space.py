"""Where a guest's tables map nothing: the holes that the region may be put into.

For each piece of the linear space in which something is mapped - a page table's span, a large page, memory without
paging - there are three numbers: the free pages at its beginning, at its end, and in its largest run. Between two
pieces all is free. A store to a table makes the piece that it maps *dirty*; what is dirty is read anew when somebody
asks next, so a guest that never meets the region pays nothing. A question is then a look at arrays of a few numbers
a page table (not a page): the highest hole among 100,000 costs about as much as among ten.

Places are page numbers of the 2^36 (or, for 32 bits, 2^20) of the linear space.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hvproto.addresses import GVA, PAGE_SHIFT
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.levels import Level, levels_of
from hvproto.hypervisor.ram_arrays import Entries64, Flags, Numbers, runs
from hvproto.hypervisor.view import canonical, page_number
from hvproto.processor.paging import PS, P, PagingMode

PAGES_32 = 1 << 20
PAGES_48 = 1 << 36
_MAPS_KEPT = 1024
_FEW = 16
"""Changed tables that are read anew one by one."""
_CHUNK = 256
"""Pieces that are looked at in one go, from the top."""
_START, _END, _BEFORE, _AFTER, _LARGEST = range(5)
_NOTHING = PAGES_48, 0
_NO_TABLE, _LARGE_PAGE = -1, -2


class FreeSpace:
    """The holes of one guest root, and never page 0, the last page, or what isn't canonical.

    Page 0 because a null pointer of the guest must not find anything there; the last one, in each half of a 48-bit
    space, so that no address of the region's end wraps or stops being canonical.
    """

    def __init__(self, mode: PagingMode, memory: GuestMemory) -> None:
        self._memory = memory
        self._levels = levels_of(mode)
        self._format = mode.format
        self._root = mode.cr3 & self._format.root_mask if self._format else 0
        wide = len(self._levels) == 4
        self._pages = PAGES_48 if wide else PAGES_32
        half = PAGES_48 // 2
        self._never = (0, half - 1, PAGES_48 - 1) if wide else (0, PAGES_32 - 1)
        self._span = self._levels[-1].count if self._levels else 1
        """Pages that one last-level table maps."""
        self._pieces: Numbers = np.empty((5, 0), np.int64)
        """By column, in order: start, end, free pages at the beginning, at the end, in the largest run."""
        self._gaps: Numbers = np.empty(0, np.int64)
        """Free pages between the last that a piece has mapped and the first that the next one has."""
        self._maps: dict[int, bytes] = {}
        """By start of a piece: a byte for each page that a table maps, 1 if mapped; of what was last looked at."""
        self._dirty: set[int] = set()
        """Spans (by number) of single tables whose entries have changed."""
        self._dirty_ranges: list[tuple[int, int]] = [(0, self._pages)]
        self._least = 0
        self._highest = _NOTHING
        """The highest hole of ``_least`` pages or more, as [first, end), until there is a change at it or above it.

        The region is in that hole as a rule, and the guest below: to ask for it again costs 5 Y, a search some 60.
        """

    @property
    def pages(self) -> int:
        """Of the linear space, mapped or not."""
        return self._pages

    def touch(self, first: int, end: int) -> None:
        """The guest may have changed its mapping of the pages [first, end)."""
        if end >= self._highest[0]:
            self._highest = _NOTHING
        if end - first <= self._span:
            self._dirty.add(first // self._span)
            if end - first > 1:
                self._dirty.add((end - 1) // self._span)
        elif len(self._dirty_ranges) < 64:
            self._dirty_ranges.append((first // self._span * self._span, -(-end // self._span) * self._span))
        else:
            self._dirty_ranges = [(0, self._pages)]

    # -- questions ---------------------------------------------------------------------------

    def holes(self, at_least: int = 1) -> Iterator[tuple[GVA, int]]:
        """(start, pages) of each hole of so many pages or more, the highest first.

        In 48 bits the upper half comes first, as its addresses are higher.
        """
        first, end = self._highest
        known = end > first and self._least == at_least
        if known:
            yield GVA(canonical(first)), end - first
        for number, (first, end) in enumerate(self._search(at_least)):
            if number or not known:
                if not number:
                    self._least, self._highest = at_least, (first, end)
                yield GVA(canonical(first)), end - first

    def _search(self, at_least: int) -> Iterator[tuple[int, int]]:
        """The same as page numbers, [first, end)."""
        self._refresh()
        pieces, gaps = self._pieces, self._gaps
        for high in range(pieces.shape[1], 0, -_CHUNK):
            low = max(high - _CHUNK, 0)
            fits = np.maximum(gaps[low:high], pieces[_LARGEST, low:high]) >= at_least
            for at in reversed(fits.nonzero()[0].tolist()):
                start, end, before, after, largest = pieces[:, low + at].tolist()
                if gaps[low + at] >= at_least:
                    yield end - after, end - after + int(gaps[low + at])
                if largest >= at_least:
                    for first, stop in self._inside(start, end, before, after, at_least):
                        yield start + first, start + stop

    def is_free(self, gva: int, pages: int) -> bool:
        """Whether nothing is mapped in so many pages from an address on, and the region may be there."""
        first = page_number(gva)
        end = first + pages
        if pages < 1 or gva != canonical(first) or end > self._pages:
            return False
        if self._highest[0] <= first and end <= self._highest[1]:
            return True
        self._refresh()
        low = int(self._pieces[_END].searchsorted(first, "right"))
        high = int(self._pieces[_START].searchsorted(end, "left"))
        for start, stop in self._pieces[:2, low:high].T.tolist():
            mapped = self._mapped(start, stop)
            if mapped is None or 1 in mapped[max(first - start, 0) : end - start]:
                return False
        return True

    def mapped(self, first: int, end: int) -> list[int]:
        """The page numbers in [first, end) of what isn't free, in order."""
        if self._highest[0] <= first and end <= self._highest[1]:
            return []
        if (self._dirty or self._dirty_ranges) and self._has_no_table(first, end):
            return []
        self._refresh()
        low = int(self._pieces[_END].searchsorted(first, "right"))
        high = int(self._pieces[_START].searchsorted(end, "left"))
        found: list[int] = []
        for start, stop in self._pieces[:2, low:high].T.tolist():
            pages = self._mapped(start, stop)
            found += [page for page in range(max(first, start), min(end, stop)) if pages is None or pages[page - start]]
        return found

    def _has_no_table(self, first: int, end: int) -> bool:
        """Whether an upper level says that nothing is mapped in [first, end): as a rule, where the region is.

        A root that has just come in is looked at in full otherwise, which takes a millisecond.
        """
        return not any(first <= page < end for page in self._never) and not any(
            self._leaf_table(span * self._span) != _NO_TABLE
            for span in range(first // self._span, -(-end // self._span))
        )

    def widest(self) -> tuple[GVA, int]:
        """(start, pages) of the largest hole, the highest of those; (0, 0) if there is none."""
        self._refresh()
        largest = max(int(self._gaps.max()), int(self._pieces[_LARGEST].max()))
        return next(self.holes(largest)) if largest else (GVA(0), 0)

    def taken(self) -> Numbers:
        """What isn't free, as rows (first, end) in order: each a run of pages that are mapped or never used.

        Where more page tables are in use than are kept at hand, all from a table's first mapped page to its last counts
        as taken.
        """
        self._refresh()
        exact = self._pieces.shape[1] <= _MAPS_KEPT
        rows: list[tuple[int, int]] = []
        for start, end, before, after, _ in self._pieces.T.tolist():
            mapped = self._mapped(start, end) if exact else None
            if mapped is None:
                rows.append((start + before, end - after))
            else:
                found = runs(np.frombuffer(mapped, np.bool_))
                rows += [(start + first, start + stop) for first, stop in found]
        return np.array(rows, np.int64).reshape(-1, 2)

    # -- what is mapped ----------------------------------------------------------------------

    def _inside(self, start: int, end: int, before: int, after: int, at_least: int) -> list[tuple[int, int]]:
        """The free runs of a piece that touch neither of its ends, the highest first."""
        mapped = self._mapped(start, end)
        if mapped is None:
            return []
        found = []
        stop = end - start - after
        wanted = bytes(at_least)
        while (at := mapped.rfind(wanted, before, stop)) >= 0:
            last = at + at_least
            first = mapped.rfind(1, 0, at) + 1
            found.append((first, last))
            stop = first
        return found

    def _mapped(self, start: int, end: int) -> bytes | None:
        """For each page of a piece 1 if it is mapped; None if no page table says, since all of it is."""
        if not self._levels or end - start != self._span:
            return None
        found = self._maps.get(start)
        if found is None:
            found = self._read_map(start)
            if found is not None:
                if len(self._maps) >= _MAPS_KEPT:
                    self._maps.clear()
                self._maps[start] = found
        return found

    def _leaf_table(self, page: int) -> int:
        """The GPA of the last-level table for a page number; _NO_TABLE where nothing is mapped, or _LARGE_PAGE."""
        table = self._root
        for level in self._levels[:-1]:
            entry = self._entry(table, level, page >> level.shift - PAGE_SHIFT & level.count - 1)
            if not entry & P or level.is_reserved(entry):
                return _NO_TABLE
            if level.large and entry & PS:
                return _LARGE_PAGE
            table = entry & self._frame_mask
        return table if self._levels else _LARGE_PAGE

    def _read_map(self, start: int) -> bytes | None:
        table = self._leaf_table(start)
        if table in (_NO_TABLE, _LARGE_PAGE):
            return None
        entries = self._entries(table, self._levels[-1])
        if entries is None:
            return None
        return self._present(entries[None, :], [start]).tobytes()

    @property
    def _frame_mask(self) -> int:
        assert self._format is not None
        return self._format.frame_mask

    def _entry(self, table: int, level: Level, index: int) -> int:
        assert self._format is not None
        size = self._format.entry_size
        return self._memory.read_entry(table + index * size, size) or 0

    def _entries(self, table: int, level: Level) -> Entries64 | None:
        assert self._format is not None
        found = self._memory.table(table, level.count, self._format.entry_size)
        return None if found is None else found.astype(np.uint64)

    def _present(self, rows: Entries64, starts: list[int]) -> Flags:
        """Which entries of some last-level tables map a page, or stand for a page that is never used."""
        leaf = self._levels[-1]
        mapped: Flags = np.equal(rows & (P | leaf.reserved), P)
        for page in self._never:
            for row, start in enumerate(starts):
                if start <= page < start + self._span:
                    mapped[row, page - start] = True
        return mapped

    # -- keeping it up to date ---------------------------------------------------------------

    def _refresh(self) -> None:
        if not self._dirty and not self._dirty_ranges:
            return
        if not self._dirty_ranges and len(self._dirty) <= _FEW and all(map(self._reread, self._dirty)):
            self._dirty.clear()
            return
        spans = [(span * self._span, (span + 1) * self._span) for span in self._dirty]
        merged: list[tuple[int, int]] = []
        for first, end in sorted([*spans, *self._dirty_ranges]):
            if merged and first <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((first, end))
        self._dirty.clear()
        self._dirty_ranges = []
        self._maps.clear()
        for first, end in merged:
            self._replace(first, min(end, self._pages))
        pieces = self._pieces
        free = pieces[_START, 1:] - pieces[_END, :-1] + pieces[_AFTER, :-1] + pieces[_BEFORE, 1:]
        self._gaps = np.append(free, 0)

    def _reread(self, span: int) -> bool:
        """Bring a piece up to date that was a table's before and still is; False if it isn't so simple."""
        start = span * self._span
        self._maps.pop(start, None)
        at = int(self._pieces[_START].searchsorted(start))
        if at >= self._gaps.size or self._pieces[_START, at] != start:
            return False
        mapped = self._mapped(start, int(self._pieces[_END, at])) or b""
        before, last = mapped.find(1), mapped.rfind(1)
        if before < 0:
            return False
        after, inside = self._span - 1 - last, 0
        if mapped.count(1) <= last - before:
            taken = np.frombuffer(mapped, np.uint8).nonzero()[0]
            inside = int((taken[1:] - taken[:-1]).max()) - 1
        _, _, old_before, old_after, _ = self._pieces[:, at].tolist()
        self._pieces[_BEFORE:, at] = before, after, max(before, after, inside)
        self._gaps[at] += after - old_after if at + 1 < self._gaps.size else 0
        if at:
            self._gaps[at - 1] += before - old_before
        return True

    def _replace(self, first: int, end: int) -> None:
        """Read the pieces in a range anew."""
        pieces = self._pieces
        low = int(pieces[_END].searchsorted(first, "right"))
        high = int(pieces[_START].searchsorted(end, "left"))
        if low < high:
            first, end = min(first, int(pieces[_START, low])), max(end, int(pieces[_END, high - 1]))
        self._pieces = np.concatenate((pieces[:, :low], self._read(first, end), pieces[:, high:]), axis=1)

    def _read(self, first: int, end: int) -> Numbers:
        """The pieces of [first, end), which are whole ones."""
        solid: list[tuple[int, int]] = []
        tables: list[tuple[int, Entries64]] = []
        if self._levels:
            self._walk(0, self._root, 0, first, end, solid, tables)
        else:
            solid = [(max(low, first), min(high, end)) for low, high in self._memory.runs(end) if high > first]
        found = [(low, high, 0, 0, 0) for low, high in solid]
        if tables:
            starts = [start for start, _ in tables]
            mapped = self._present(np.stack([entries for _, entries in tables]), starts)
            found += self._summaries(starts, mapped)
        covered = sorted(found)
        for page in self._never:
            if first <= page < end and not any(low <= page < high for low, high, *_ in covered):
                found.append((page, page + 1, 0, 0, 0))
        return np.array(sorted(found), np.int64).reshape(-1, 5).T

    def _summaries(self, starts: list[int], mapped: Flags) -> list[tuple[int, int, int, int, int]]:
        """What is known of each table in which anything is mapped."""
        places = np.arange(self._span, dtype=np.int16)
        last = np.maximum.accumulate(np.where(mapped, places, np.int16(-1)), axis=1)
        largest = (places - last).max(axis=1).tolist()
        before = mapped.argmax(axis=1).tolist()
        after = mapped[:, ::-1].argmax(axis=1).tolist()
        some: list[bool] = np.any(mapped, axis=1).tolist()
        return [
            (start, start + self._span, before[row], after[row], largest[row])
            for row, start in enumerate(starts)
            if some[row]
        ]

    def _walk(
        self,
        depth: int,
        table: int,
        base: int,
        first: int,
        end: int,
        solid: list[tuple[int, int]],
        tables: list[tuple[int, Entries64]],
    ) -> None:
        """Find the large pages and the last-level tables for the pages [first, end)."""
        level = self._levels[depth]
        entries = self._entries(table, level)
        if entries is None:
            return
        if level.leaf:
            tables.append((base, entries))
            return
        pages = level.pages
        low = max((first - base) // pages, 0)
        high = min((end - 1 - base) // pages + 1, level.count)
        part = entries[low:high]
        large = np.full(part.shape, level.large) & (part & PS != 0)
        there = (part & P != 0) & np.where(large, part & level.reserved_large == 0, part & level.reserved == 0)
        for start, stop in runs(there & large):
            at = base + low * pages
            solid.append((max(at + start * pages, first), min(at + stop * pages, end)))
        for index in np.flatnonzero(there & ~large).tolist():
            child = int(part[index]) & self._frame_mask
            self._walk(depth + 1, child, base + (low + index) * pages, first, end, solid, tables)
