"""Following the guest's page tables: which page is a table of which level where, and what a store changes.

For every root that the guest has loaded there is a mirror. Each guest-physical page that serves as
a table is watched by the monitor, with a list of its *uses*: a table may be shared, or be its own
child (a recursive map), and a store to it then changes several linear ranges at once. The uses of
one root form a tree, so what an entry leads to is forgotten without looking at anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hvproto.addresses import GPA, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.known_tables import KnownTables
from hvproto.hypervisor.levels import Level, levels_of
from hvproto.hypervisor.mirror import Mirror, canonical
from hvproto.hypervisor.monitor import Monitor, TableStore
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.view import View
from hvproto.processor.paging import PS, P, PagingMode

MAX_ROOTS = 8
"""How many mirrors are kept; the one that was loaded longest ago goes first."""
MAX_USES = 1 << 16
"""Places that tables have in one root's structure. A table full of pointers to itself would have 2^27 of them."""


MANY_ENTRIES = 32
"""So many entries are looked at together."""
MANY_USES = 16
"""A page that is more tables at once has its stores followed one by one."""


class TooManyTables(PoolExhausted):
    """The guest's page tables map more page tables than can be followed."""


class Use:
    """One place in a guest's paging structure that a table has: level 0 is the root."""

    __slots__ = ("alive", "base", "children", "level", "mirror", "table")

    def __init__(self, mirror: Mirror, level: int, table: int, base: int) -> None:
        self.mirror = mirror
        self.level = level
        self.table = table
        """GPA of the table."""
        self.base = base
        """The number of the first page that the table maps."""
        self.children: dict[int, Use] = {}
        """By index of the entry that points there."""
        self.alive = True


class Change(NamedTuple):
    """A linear range of one mirror whose mapping a store may have changed."""

    mirror: Mirror
    linear: int
    size: int


@dataclass(slots=True)
class _Root:
    """A mirror with the tables it is made from."""

    mirror: Mirror
    levels: tuple[Level, ...]
    entry_size: int
    use: Use | None = None
    uses: int = 0
    lagging: dict[Use, None] = field(default_factory=dict)
    """Tables that aren't watched until this root is loaded again, and then are looked at in whole."""


class GuestTables:
    """All mirrors of one guest, and the tables that they were made from."""

    def __init__(self, ram: memoryview, pool: Pool, memory: GuestMemory, monitor: Monitor) -> None:
        self._ram = ram
        self._pool = pool
        self._memory = memory
        self._known = KnownTables(memory)
        self._monitor = monitor
        self._roots: dict[PagingMode, _Root] = {}
        """The one that was loaded last comes last."""
        self._uses: dict[GPA, dict[Use, None]] = {}
        """By page, in the order in which they came; a list would make a table of pointers to itself cost minutes."""
        self._building = False
        self._kept: Mirror | None = None
        self._spare: tuple[View, View] | None = None
        """What a mirror has left that was dropped for the sake of the next one."""
        self.version = 0
        """It changes with anything that isn't an entry of a last-level table."""
        self.may_lag: Callable[[], bool] = lambda: False
        """Whether nobody wants to hear of stores to the tables of roots that aren't loaded."""
        pool.reclaim = self._reclaim

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        return tuple(root.mirror for root in self._roots.values())

    def mirror_for(self, mode: PagingMode, *, beside: Mirror | None = None) -> Mirror:
        """The mirror of a root, made if there is none yet. Raises PoolExhausted, TooManyTables.

        ``beside``: another one, which isn't dropped for it.
        """
        self._kept = beside
        try:
            return self._mirror_for(mode)
        finally:
            self._kept = None

    def _mirror_for(self, mode: PagingMode) -> Mirror:
        root = self._roots.pop(mode, None)
        if root is None:
            while len(self._roots) >= MAX_ROOTS:
                self._retire(next(iter(self._roots)))
            root = self._build(mode)
        self._roots[mode] = root
        if root.lagging:
            try:
                self._catch_up(root)
            except PoolExhausted:
                self._drop(mode)
                raise
        return root.mirror

    def _build(self, mode: PagingMode) -> _Root:
        self._building = True  # now even the mirror that is loaded may go
        root = None
        try:
            fmt = mode.format
            mirror = Mirror(self._ram, self._pool, self._memory, mode, self._known, self._take_spare(mode))
            root = _Root(mirror, levels_of(mode), fmt.entry_size if fmt else 0)
            if fmt is not None:
                pages: list[GPA] = []
                self._link(root, None, 0, mode.cr3 & fmt.root_mask, pages)
                self._monitor.watch_all(pages)
            root.mirror.sync_range(0, 1 << 48 if len(root.levels) == 4 else 1 << 32)
            root.mirror.on_exhausted = self._give_up
            return root
        except PoolExhausted:
            if root is not None:
                self._release(root)
            raise
        finally:
            self._building = False

    # -- when memory runs out ----------------------------------------------------------------

    def _reclaim(self) -> bool:
        """Drop the mirror that was loaded longest ago, but not the one that is loaded or being changed."""
        if self._spare is not None:
            self._release_spare()
            return True
        candidates = list(self._roots) if self._building else list(self._roots)[:-1]
        for mode in candidates:
            mirror = self._roots[mode].mirror
            if not mirror.busy and mirror is not self._kept:
                self._drop(mode)
                return True
        return False

    def _give_up(self, mirror: Mirror) -> bool:
        """Drop a mirror that can't be brought up to date for lack of memory, unless it is the one that is loaded."""
        if next(reversed(self._roots.values())).mirror is mirror:
            return False
        self._drop(mirror.mode)
        return True

    def _drop(self, mode: PagingMode) -> None:
        self._release(self._roots.pop(mode))

    def _retire(self, mode: PagingMode) -> None:
        """Drop a mirror, and keep its views for the next one."""
        root = self._roots[mode]
        if root.mirror.has_region:
            self._drop(mode)
            return
        del self._roots[mode]
        self._unlink_all(root)
        self._release_spare()
        self._spare = root.mirror.leave()

    def _take_spare(self, mode: PagingMode) -> tuple[View, View] | None:
        """The views that a mirror has left, if the next one's may be like them."""
        if self._spare is not None and self._spare[0].wraps != (len(levels_of(mode)) != 4):
            self._release_spare()
        spare, self._spare = self._spare, None
        return spare

    def _release_spare(self) -> None:
        for view in self._spare or ():
            view.release()
        self._spare = None

    def _unlink_all(self, root: _Root) -> None:
        if root.use is not None:
            self._unlink(root, root.use)

    def _release(self, root: _Root) -> None:
        self._unlink_all(root)
        root.mirror.release()

    # -- roots that aren't loaded ------------------------------------------------------------

    def is_idle(self, page: GPA) -> bool:
        """Whether a page is nothing but tables of roots that aren't loaded."""
        uses = self._uses.get(page)
        if not uses or len(uses) != self._monitor.users(page):
            return False
        loaded = next(reversed(self._roots.values())).mirror
        return all(use.mirror is not loaded for use in uses)

    def _lag(self, page: GPA) -> None:
        """Leave the stores to an idle page unheard until one of its roots is loaded (an *unsync* page).

        A kernel that writes another process's tables, or makes something else of those of a dead one, would be stopped
        for each of a thousand stores.
        """
        for use in self._uses.pop(page):
            self._roots[use.mirror.mode].lagging[use] = None
            self._monitor.unwatch(page)
        self.version += 1

    def _catch_up(self, root: _Root) -> None:
        lagging, root.lagging = root.lagging, {}
        for use in lagging:
            page = GPA(use.table & ~PAGE_MASK)
            self._uses.setdefault(page, {})[use] = None
            self._monitor.watch(page)
        changes: list[Change] = []
        for use in lagging:
            if use.alive:
                page = GPA(use.table & ~PAGE_MASK)
                self._change(use, [(page, page + PAGE_SIZE)], changes)
        for change in changes:
            change.mirror.sync_range(change.linear, change.size)

    # -- links -------------------------------------------------------------------------------

    def _link(self, root: _Root, parent: Use | None, index: int, table: int, pages: list[GPA]) -> None:
        """Follow a table and all that it leads to; ``pages`` gets what is to be watched.

        ``index`` is that of the parent's entry; without a parent, the table is the root.
        """
        page = GPA(table & ~PAGE_MASK)
        if not self._memory.is_ram(page):
            return
        self.version += 1
        if parent is None:
            use = root.use = Use(root.mirror, 0, table, 0)
        else:
            base = parent.base + index * root.levels[parent.level].pages
            use = parent.children[index] = Use(root.mirror, parent.level + 1, table, base)
        level = root.levels[use.level]
        self._uses.setdefault(page, {})[use] = None
        pages.append(page)
        root.uses += 1
        if root.uses > MAX_USES:
            self._monitor.watch_all(pages)
            raise TooManyTables(f"the guest's page tables have more than {MAX_USES:,} places in its structure")
        if level.leaf:
            return
        entries = self._memory.table(table, level.count, root.entry_size)
        assert entries is not None
        for number in np.flatnonzero(entries & P).tolist():
            child = self._child(root, level, int(entries[number]))
            if child is not None:
                self._link(root, use, number, child, pages)

    @staticmethod
    def _child(root: _Root, level: Level, entry: int) -> int | None:
        """The GPA of the table that an entry points to."""
        if not entry & P or level.leaf or (level.large and entry & PS) or level.is_reserved(entry):
            return None
        fmt = root.mirror.mode.format
        assert fmt is not None
        return entry & fmt.frame_mask

    def _unlink(self, root: _Root, use: Use) -> None:
        """Forget a table and all that it leads to."""
        pages: list[GPA] = []
        self._cut(root, use, pages)
        self._monitor.unwatch_all(pages)

    def _cut(self, root: _Root, use: Use, pages: list[GPA]) -> None:
        """What `_unlink` does, but ``pages`` gets what isn't to be watched for it any more."""
        for child in use.children.values():
            self._cut(root, child, pages)
        use.alive = False
        self.version += 1
        root.uses -= 1
        page = GPA(use.table & ~PAGE_MASK)
        if use in root.lagging:
            del root.lagging[use]
            return
        uses = self._uses[page]
        del uses[use]
        if not uses:
            del self._uses[page]
        pages.append(page)

    def _linked(self, root: _Root, use: Use, first: int, end: int) -> list[int]:
        """The indices of [first, end) that lead to a table or did so."""
        entries = self._memory.table(use.table, end, root.entry_size)
        present = np.flatnonzero(entries[first:] & P) + first if entries is not None else np.empty(0, np.int64)
        return sorted({*present.tolist(), *(index for index in use.children if first <= index < end)})

    def _relink(self, root: _Root, use: Use, index: int) -> None:
        """Follow what an upper-level entry points to now."""
        level = root.levels[use.level]
        entry = self._memory.read_entry(use.table + index * root.entry_size, root.entry_size)
        child = self._child(root, level, entry or 0)
        old = use.children.get(index)
        if old is not None and old.table == child:
            return  # other permissions at most
        if old is not None:
            del use.children[index]
        if child is not None:
            pages: list[GPA] = []
            self._link(root, use, index, child, pages)
            self._monitor.watch_all(pages)
        if old is not None:  # only now, so that a page that stays a table isn't opened and closed again
            self._unlink(root, old)

    # -- stores ------------------------------------------------------------------------------

    def is_table(self, gpa: int) -> bool:
        return GPA(gpa & ~PAGE_MASK) in self._uses

    def deferrable(self, page: GPA, users: int, present: Mirror, region: tuple[int, int]) -> int:
        """The size of the entries, if stores to this page may be deferred; 0 if not.

        They may where it is nothing but tables (``users`` is how many watch it) of the last level, or 2-level roots,
        of which none maps, for the mirror that is loaded, a page of ``region``, [first, end) by page numbers: a
        conflict is to be seen at once.
        """
        uses = self._uses.get(page, {})
        if len(uses) != users or not 0 < users <= MANY_USES:
            return 0
        sizes = set()
        for use in uses:
            root = self._roots[use.mirror.mode]
            level = root.levels[use.level]
            if not level.leaf and len(root.levels) != 2:
                return 0
            end = use.base + level.count * level.pages
            if use.mirror is present and use.base < region[1] and region[0] < end:
                return 0
            sizes.add(root.entry_size)
        return sizes.pop() if len(sizes) == 1 else 0

    def last_level(self, page: GPA) -> list[tuple[Mirror, int, int]]:
        """(mirror, number of the first page that it maps, size of an entry) of all that a page is as a table.

        Empty if it is none, or one above the last level somewhere.
        """
        found = []
        for use in self._uses.get(page, ()):
            root = self._roots.get(use.mirror.mode)
            if root is None or not root.levels[use.level].leaf:
                return []
            found.append((use.mirror, use.base, root.entry_size))
        return found

    def tables_of(self, first: int, end: int, mirrors: Sequence[Mirror]) -> list[GPA]:
        """The pages of the tables that map any of the page numbers [first, end) for one of these mirrors."""
        found: list[GPA] = []
        for root in self._roots.values():
            if root.mirror not in mirrors:
                continue
            uses = [root.use] if root.use is not None else []
            for level in root.levels:
                found.extend(GPA(use.table & ~PAGE_MASK) for use in uses)
                if level.leaf:
                    break
                below: list[Use] = []
                for use in uses:
                    low = max((first - use.base) // level.pages, 0)
                    high = min((end - 1 - use.base) // level.pages + 1, level.count)
                    below.extend(use.children[index] for index in range(low, high) if index in use.children)
                uses = below
        return found

    def changes(self, store: TableStore) -> list[Change]:
        """What a store may have changed; the links follow it, the mirrors don't yet."""
        return self.changes_of((store,))

    def changes_of(self, stores: Iterable[TableStore]) -> list[Change]:
        """What some stores may have changed, successive entries of a table together, as `changes` has it.

        What counts is what the tables hold now, so the order of the stores doesn't matter.
        """
        touched: dict[GPA, list[tuple[int, int]]] = {}
        for store in stores:
            page = GPA(store.gpa & ~PAGE_MASK)
            if page in self._uses:
                touched.setdefault(page, []).append((store.gpa, store.gpa + store.size))
        changes: list[Change] = []
        may_lag = self.may_lag()
        for page, pieces in touched.items():
            if may_lag and self.is_idle(page):
                self._lag(page)
                continue
            for use in tuple(self._uses.get(page, ())):
                if use.alive:  # another change may just have led away from it
                    self._change(use, pieces, changes)
        return changes

    def _change(self, use: Use, pieces: list[tuple[int, int]], changes: list[Change]) -> None:
        root = self._roots[use.mirror.mode]
        level = root.levels[use.level]
        for first, end in _indices(pieces, use.table, root.entry_size, level.count):
            if not level.leaf:
                self.version += 1  # if only by other permissions
                for index in range(first, end) if end - first < MANY_ENTRIES else self._linked(root, use, first, end):
                    self._relink(root, use, index)
            page = use.base + first * level.pages
            pages = (end - first) * level.pages
            use.mirror.space.touch(page, page + pages)
            changes.append(Change(use.mirror, canonical(page), pages << PAGE_SHIFT))


def joined(changes: Iterable[Change]) -> list[Change]:
    """... with those that follow one another in linear memory made one."""
    found: list[Change] = []
    for change in changes:
        last = found[-1] if found else None
        if last is not None and last.mirror is change.mirror and last.linear + last.size == change.linear:
            found[-1] = Change(last.mirror, last.linear, last.size + change.size)
        else:
            found.append(change)
    return found


def _indices(pieces: list[tuple[int, int]], table: int, entry_size: int, count: int) -> list[tuple[int, int]]:
    """The ranges [first, end) of a table's entries that stores to [gpa, end gpa) touch, in order and merged.

    >>> _indices([(0x1008, 0x1010), (0x1004, 0x1009), (0x1020, 0x1021)], 0x1000, 4, 1024)
    [(1, 4), (8, 9)]
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted(pieces) if len(pieces) > 1 else pieces:
        first = max((start - table) // entry_size, 0)
        end = min((stop - 1 - table) // entry_size + 1, count)
        if first >= end:
            continue
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((first, end))
    return found
