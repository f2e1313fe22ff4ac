"""The mirror: the hypervisor's page table, which holds the guest's mappings plus the region (claims 1-8).

Whatever format the guest uses, a mirror is made of PAE tables with NX on all that isn't fetched
from. It has two *views*. In the kernel view, supervisor pages of the guest are accessible, since
the deprivileged guest kernel runs at ring 3; in the user view they aren't there. The region is a
supervisor page in both, so U/S alone keeps the guest out of it.

An entry whose guest A bit is clear stays *hidden*: all is there but the P bit, and the MIRRORED
software bit says so. The first access faults, the guest's A bit is set, and the entry appears. In
the same way an entry stays read-only until the guest's D bit is set. So the guest's accessed and
dirty bits change exactly when the processor would have changed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvproto.addresses import GPA, HPA, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.pool import Pool
from hvproto.processor.paging import NX, PS, A, D, P, PagingMode, U, W, large_frame

MIRRORED = 1 << 9
"""Software bit (ignored by the processor): the guest maps this page, hidden or not."""
REGION = 1 << 10
"""Software bit: a page of the hypervisor's region."""
ADDRESS = 0x000F_FFFF_FFFF_F000
_TABLE_SPAN = 1 << 21
_ENTRIES = 512
LINEAR_PAGES = 1 << 20


class View:
    """One PAE page table: 4 directories made at once, page tables as they are needed."""

    def __init__(self, ram: memoryview, pool: Pool) -> None:
        self._words = ram.cast("Q")
        self._pool = pool
        self.pdpt = pool.allocate()
        self._directories = [pool.allocate() for _ in range(4)]
        self._tables: dict[int, HPA] = {}
        for index, directory in enumerate(self._directories):
            self._words[(self.pdpt >> 3) + index] = directory | P

    def set(self, linear: int, entry: int) -> int:
        """Write the entry for a page; returns what was there before."""
        slot = linear >> 21
        table = self._tables.get(slot)
        if table is None:
            if not entry:
                return 0
            table = self._tables[slot] = self._pool.allocate()
            directory = self._directories[slot >> 9]
            self._words[(directory >> 3) + (slot & 511)] = table | P | W | U
        at = (table >> 3) + (linear >> PAGE_SHIFT & 511)
        old = self._words[at]
        self._words[at] = entry
        return old

    def get(self, linear: int) -> int:
        table = self._tables.get(linear >> 21)
        return 0 if table is None else self._words[(table >> 3) + (linear >> PAGE_SHIFT & 511)]

    def clear(self, linear: int, size: int) -> None:
        """Forget the guest's entries in a range; those of the region stay."""
        end = linear + size
        for slot in range(linear >> 21, (end + _TABLE_SPAN - 1) >> 21):
            if slot in self._tables:
                first = max(linear, slot << 21)
                for page in range(first, min(end, (slot + 1) << 21), PAGE_SIZE):
                    if not self.get(page) & REGION:
                        self.set(page, 0)

    def entries(self) -> Iterator[tuple[int, int]]:
        """(linear address, entry) of all that isn't zero, in order of address."""
        for slot in sorted(self._tables):
            base = self._tables[slot] >> 3
            for index in range(_ENTRIES):
                entry = self._words[base + index]
                if entry:
                    yield slot << 21 | index << PAGE_SHIFT, entry

    def release(self) -> None:
        for frame in (self.pdpt, *self._directories, *self._tables.values()):
            self._pool.release(frame)


@dataclass(frozen=True, slots=True)
class GuestPage:
    """One page as the guest's tables map it, permissions combined over the levels."""

    gpa: int
    writable: bool
    user: bool
    accessed: bool
    dirty: bool


class Mirror:
    """The mirror of one guest root, in both views.

    What a page may be executed for depends on what was looked at: by whom (the kernel view or the user view), and in
    which guest-physical page.
    """

    def __init__(self, ram: memoryview, pool: Pool, memory: GuestMemory, mode: PagingMode) -> None:
        self.mode = mode
        self.memory = memory
        self.kernel = View(ram, pool)
        self.user = View(ram, pool)
        self._executable: dict[bool, dict[int, int]] = {True: {}, False: {}}
        """By view (True: the kernel's), linear page number -> guest-physical page that was looked at."""

    def allow_fetches(self, linear: int, gpa: GPA, *, kernel: bool) -> None:
        """A linear page may be executed in a view from now on, while it maps this guest-physical page."""
        self._executable[kernel][linear >> PAGE_SHIFT] = gpa

    def forbid_fetches(self, linear: int, *, except_from: GPA) -> bool:
        """Other code at the same linear address must be looked at anew here; True if there was any."""
        page, found = linear >> PAGE_SHIFT, False
        for looked_at in self._executable.values():
            if looked_at.get(page, except_from) != except_from:
                del looked_at[page]
                found = True
        return found

    def entry_for(self, page: GuestPage, linear: int, *, kernel: bool) -> int:
        """The mirror's entry for a guest page in one of the views; 0 if it must not be there."""
        if not kernel and not page.user:
            return 0
        frame = self.memory.to_host(page.gpa)
        if frame is None:
            return 0  # an access faults, and the hypervisor finds that there is no memory
        entry = frame & ADDRESS | U | MIRRORED
        if page.accessed:
            entry |= P
        # A kernel without CR0.WP writes where it likes; the D bit must be set by such a write too.
        if page.dirty and (page.writable or (kernel and not self.mode.write_protect)):
            entry |= W
        looked_at = self._executable[kernel].get(linear >> PAGE_SHIFT)
        return entry if looked_at == page.gpa & ~PAGE_MASK else entry | NX

    def map_page(self, linear: int, page: GuestPage | None) -> None:
        """Bring both views to what the guest's tables now say of one page."""
        for view, kernel in ((self.kernel, True), (self.user, False)):
            view.set(linear, 0 if page is None else self.entry_for(page, linear, kernel=kernel))

    def guest_page(self, linear: int) -> GuestPage | None:
        """What the guest's tables say of a page, A and D bits included; None if not mapped."""
        mode = self.mode
        fmt = mode.format
        if fmt is None:
            return GuestPage(linear, True, True, True, True) if linear < self.memory.size else None
        table = mode.cr3 & fmt.root_mask
        writable = user = accessed = True
        for level, (shift, _) in enumerate(fmt.levels):
            entry = self.memory.read_entry(table + fmt.index(level, linear) * fmt.entry_size, fmt.entry_size)
            if entry is None or not entry & P:
                return None
            if level or fmt.depth != 3:  # PAE's PDPTEs have neither permissions nor an A bit
                writable &= bool(entry & W)
                user &= bool(entry & U)
                accessed &= bool(entry & A)
            if level == fmt.depth - 1:
                return GuestPage(entry & fmt.frame_mask, writable, user, accessed, bool(entry & D))
            if entry & PS and mode.allows_large(fmt, level):
                offset = linear & ((1 << shift) - PAGE_SIZE)
                frame = large_frame(fmt, entry, shift) | offset
                return GuestPage(frame, writable, user, accessed, bool(entry & D))
            table = entry & fmt.frame_mask
        raise AssertionError("a format's last level is always a leaf")

    def sync_page(self, linear: int) -> None:
        """Mirror one page anew, unless the region lies there."""
        if not self.kernel.get(linear) & REGION:
            self.map_page(linear, self.guest_page(linear))

    def sync_range(self, linear: int, size: int) -> None:
        """Mirror a range of whole pages anew. Where an upper level maps nothing, that costs next to nothing."""
        fmt = self.mode.format
        if fmt is None:
            self._sync_unpaged(linear, size)
        else:
            self._sync_level(0, self.mode.cr3 & fmt.root_mask, 0, linear, linear + size, (True, True, True))

    def _sync_unpaged(self, linear: int, size: int) -> None:
        for page in range(linear, min(linear + size, self.memory.size), PAGE_SIZE):
            self.sync_page(page)

    def _sync_level(
        self, level: int, table: int, base: int, first: int, end: int, above: tuple[bool, bool, bool]
    ) -> None:
        """Mirror [first, end) as far as a table maps it. ``above``: W, U and A of the levels over it."""
        fmt = self.mode.format
        assert fmt is not None
        shift, bits = fmt.levels[level]
        span = 1 << shift
        raw = self.memory.read(table & ~(PAGE_SIZE - 1), PAGE_SIZE)
        offset = table & (PAGE_SIZE - 1)
        for index in range(max(0, (first - base) >> shift), min((1 << bits) - 1, (end - 1 - base) >> shift) + 1):
            start = base + (index << shift)
            at = offset + index * fmt.entry_size
            entry = int.from_bytes(raw[at : at + fmt.entry_size], "little") if raw is not None else 0
            if not entry & P:
                low, high = max(start, first), min(start + span, end)
                self.kernel.clear(low, high - low)
                self.user.clear(low, high - low)
                continue
            if fmt.depth == 3 and level == 0:
                rights = above
            else:
                rights = (above[0] and bool(entry & W), above[1] and bool(entry & U), above[2] and bool(entry & A))
            if level == fmt.depth - 1:
                self._map_unless_region(start, GuestPage(entry & fmt.frame_mask, *rights, bool(entry & D)))
            elif entry & PS and self.mode.allows_large(fmt, level):
                frame = large_frame(fmt, entry, shift)
                low, high = max(start, first), min(start + span, end)
                if frame >= self.memory.size:  # there is nothing behind it, and so nothing to be mirrored
                    self.kernel.clear(low, high - low)
                    self.user.clear(low, high - low)
                    continue
                for page in range(low, high, PAGE_SIZE):
                    self._map_unless_region(page, GuestPage(frame + page - start, *rights, bool(entry & D)))
            else:
                self._sync_level(level + 1, entry & fmt.frame_mask, start, first, end, rights)

    def _map_unless_region(self, linear: int, page: GuestPage) -> None:
        if not self.kernel.get(linear) & REGION:
            self.map_page(linear, page)

    def set_region(self, linear: int, frames: list[HPA], code_pages: int) -> None:
        """Map the region into both views; its first ``code_pages`` pages may be executed."""
        for index, frame in enumerate(frames):
            flags = P | A | D | REGION | (0 if index < code_pages else W | NX)
            for view in (self.kernel, self.user):
                view.set(linear + index * PAGE_SIZE, frame | flags)

    def clear_region(self, linear: int, pages: int) -> None:
        """Take the region out; what the guest maps there appears."""
        for index in range(pages):
            at = linear + index * PAGE_SIZE
            for view in (self.kernel, self.user):
                view.set(at, 0)
            self.sync_page(at)

    def release(self) -> None:
        self.kernel.release()
        self.user.release()


def mapped_from_the_top(mode: PagingMode, memory: GuestMemory) -> Iterator[tuple[int, int, bool]]:
    """(start, size, mapped) pieces of the guest's linear space, 4 GiB downwards, contiguous.

    Absent upper-level entries give one large piece; the cost is that of the tables the guest has.
    """
    fmt = mode.format
    if fmt is None:
        yield memory.size, (1 << 32) - memory.size, False
        yield 0, memory.size, True
        return
    root = mode.cr3 & fmt.root_mask
    yield from _pieces(mode, memory, 0, root, 0)


def _pieces(
    mode: PagingMode, memory: GuestMemory, level: int, table: int, base: int
) -> Iterator[tuple[int, int, bool]]:
    fmt = mode.format
    assert fmt is not None
    shift, bits = fmt.levels[level]
    raw = memory.read(table & ~(PAGE_SIZE - 1), PAGE_SIZE)
    size = fmt.entry_size
    offset = table & (PAGE_SIZE - 1)
    if raw is None:
        yield base, 1 << shift + bits, False
    elif level == fmt.depth - 1:
        yield from _runs(raw[offset::size][: 1 << bits], base, shift)
    else:
        for index in reversed(range(1 << bits)):
            entry = int.from_bytes(raw[offset + index * size : offset + index * size + size], "little")
            start = base + (index << shift)
            if not entry & P:
                yield start, 1 << shift, False
            elif entry & PS and mode.allows_large(fmt, level):
                yield start, 1 << shift, True
            else:
                yield from _pieces(mode, memory, level + 1, entry & fmt.frame_mask, start)


_PRESENT = bytes(value & P for value in range(256))


def _runs(low_bytes: bytes, base: int, shift: int) -> Iterator[tuple[int, int, bool]]:
    """Runs of present and absent entries of a last-level table, the highest first."""
    present = low_bytes.translate(_PRESENT)
    end = len(present)
    while end:
        kind = present[end - 1]
        start = present.rfind(1 - kind, 0, end) + 1
        yield base + (start << shift), (end - start) << shift, bool(kind)
        end = start
