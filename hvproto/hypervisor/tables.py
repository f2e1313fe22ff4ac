"""Following the guest's page tables: which page is a table of which level where, and what a store changes.

For every root that the guest has loaded there is a mirror. Each guest-physical page that serves as
a table is watched by the monitor, with a list of its *uses*: a table may be shared, or be its own
child (a recursive map), and a store to it then changes several linear ranges at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvproto.addresses import GPA, PAGE_MASK
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.monitor import Monitor, TableStore
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.processor.paging import PS, Format, P, PagingMode

MAX_ROOTS = 8
"""How many mirrors are kept; the one that was loaded longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Use:
    """One place in a guest's paging structure that a table has: level 0 is the root."""

    mirror: Mirror
    level: int
    table: int
    """GPA of the table."""
    base: int
    """The first GVA that the table maps."""


@dataclass(frozen=True, slots=True)
class Change:
    """A linear range of one mirror whose mapping a store may have changed."""

    mirror: Mirror
    linear: int
    size: int


class GuestTables:
    """All mirrors of one guest, and the tables that they were made from."""

    def __init__(self, ram: memoryview, pool: Pool, memory: GuestMemory, monitor: Monitor) -> None:
        self._ram = ram
        self._pool = pool
        self._memory = memory
        self._monitor = monitor
        self._mirrors: dict[PagingMode, Mirror] = {}
        self._uses: dict[GPA, list[Use]] = {}

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        return tuple(self._mirrors.values())

    def mirror_for(self, mode: PagingMode) -> Mirror:
        """The mirror of a root, made if there is none yet."""
        mirror = self._mirrors.pop(mode, None)
        if mirror is None:
            while len(self._mirrors) >= MAX_ROOTS:
                self._drop_oldest()
            mirror = self._build(mode)
        self._mirrors[mode] = mirror
        return mirror

    def _build(self, mode: PagingMode) -> Mirror:
        while True:
            try:
                mirror = Mirror(self._ram, self._pool, self._memory, mode)
                fmt = mode.format
                if fmt is not None:
                    self._link(mirror, fmt, 0, mode.cr3 & fmt.root_mask, 0)
                mirror.sync_range(0, 1 << 32)
                return mirror
            except PoolExhausted:
                if not self._mirrors:
                    raise
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        mode = next(iter(self._mirrors))
        mirror = self._mirrors.pop(mode)
        fmt = mode.format
        if fmt is not None:
            for page, uses in list(self._uses.items()):
                for use in [use for use in uses if use.mirror is mirror]:
                    self._remove(page, use)
        mirror.release()

    # -- links -------------------------------------------------------------------------------

    def _children(self, mirror: Mirror, fmt: Format, level: int, table: int, base: int) -> Iterator[tuple[int, int]]:
        """(table GPA, base GVA) of the tables that a table of this level points to."""
        shift, bits = fmt.levels[level]
        for index in range(1 << bits):
            child = self._child(mirror, fmt, level, table + index * fmt.entry_size)
            if child is not None:
                yield child, base + (index << shift)

    def _child(self, mirror: Mirror, fmt: Format, level: int, entry_gpa: int) -> int | None:
        entry = self._memory.read_entry(entry_gpa, fmt.entry_size)
        if entry is None or not entry & P or level == fmt.depth - 1:
            return None
        if entry & PS and mirror.mode.allows_large(fmt, level):
            return None
        return entry & fmt.frame_mask

    def _link(self, mirror: Mirror, fmt: Format, level: int, table: int, base: int) -> None:
        page = GPA(table & ~PAGE_MASK)
        if self._memory.to_host(page) is None:
            return
        use = Use(mirror, level, table, base)
        self._uses.setdefault(page, []).append(use)
        self._monitor.watch(page)
        for child, child_base in self._children(mirror, fmt, level, table, base):
            self._link(mirror, fmt, level + 1, child, child_base)

    def _unlink(self, mirror: Mirror, level: int, base: int, size: int) -> None:
        """Forget the tables of ``level`` and deeper that map the range."""
        for page, uses in list(self._uses.items()):
            for use in uses.copy():
                if use.mirror is mirror and use.level >= level and base <= use.base < base + size:
                    self._remove(page, use)

    def _remove(self, page: GPA, use: Use) -> None:
        uses = self._uses[page]
        uses.remove(use)
        if not uses:
            del self._uses[page]
        self._monitor.unwatch(page)

    # -- stores ------------------------------------------------------------------------------

    def is_table(self, gpa: int) -> bool:
        return GPA(gpa & ~PAGE_MASK) in self._uses

    def changes(self, store: TableStore) -> list[Change]:
        """What a store may have changed; the links follow it, the mirrors don't yet."""
        changes = []
        for use in tuple(self._uses.get(GPA(store.gpa & ~PAGE_MASK), ())):
            fmt = use.mirror.mode.format
            assert fmt is not None
            shift, bits = fmt.levels[use.level]
            first = (store.gpa - use.table) // fmt.entry_size
            last = (store.gpa + store.size - 1 - use.table) // fmt.entry_size
            for index in range(max(first, 0), min(last, (1 << bits) - 1) + 1):
                linear = use.base + (index << shift)
                if use.level < fmt.depth - 1:
                    self._unlink(use.mirror, use.level + 1, linear, 1 << shift)
                    child = self._child(use.mirror, fmt, use.level, use.table + index * fmt.entry_size)
                    if child is not None:
                        self._link(use.mirror, fmt, use.level + 1, child, linear)
                changes.append(Change(use.mirror, linear, 1 << shift))
        return changes
