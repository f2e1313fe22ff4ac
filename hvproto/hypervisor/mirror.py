"""The mirror: the hypervisor's page table, which holds the guest's mappings plus the region (claims 1-8).

Whatever format the guest uses, a mirror is made of 4-level tables with NX on all that isn't fetched
from. It has two *views*. In the kernel view, supervisor pages of the guest are accessible, since
the deprivileged guest kernel runs at ring 3; in the user view they aren't there. The region is a
supervisor page in both, so U/S alone keeps the guest out of it.

An entry whose guest A bit is clear stays *hidden*: all is there but the P bit, and the MIRRORED
software bit says so. The first access faults, the guest's A bit is set, and the entry appears. In
the same way an entry stays read-only until the guest's D bit is set. So the guest's accessed and
dirty bits change exactly when the processor would have changed them. The mirror's own A and D are
set from the start: the processor has nothing to write there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hvproto.addresses import GPA, HPA, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.hypervisor.bulk import Batch
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.known_tables import KnownTables
from hvproto.hypervisor.last_tables import LastTable
from hvproto.hypervisor.levels import levels_of
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.ram_arrays import Entries64
from hvproto.hypervisor.view import (
    ADDRESS,
    DATA,
    MIRRORED,
    PAGES,
    REGION,
    SLOT_PAGES,
    SLOT_SHIFT,
    View,
    canonical,
    page_number,
)
from hvproto.processor.hidden_faults import HiddenSlot, Version
from hvproto.processor.paging import NX, PS, A, D, P, PagingMode, U, W, large_frame
from hvproto.processor.simple_tables import SimpleTable

__all__ = ["ADDRESS", "MIRRORED", "REGION", "GuestPage", "Mirror", "View", "canonical", "page_number"]

FEW_PAGES = 8
"""Up to so many pages are mirrored one by one; an array costs more, whatever its size."""
_INDEX = SLOT_PAGES - 1


class GuestPage(NamedTuple):
    """One page as the guest's tables map it, permissions combined over the levels."""

    gpa: int
    writable: bool
    user: bool
    accessed: bool
    dirty: bool
    no_execute: bool = False


class Mirror:
    """The mirror of one guest root, in both views.

    What a page may be executed for depends on what was looked at: by whom (the kernel view or the user view), and in
    which guest-physical page.
    """

    def __init__(
        self,
        ram: memoryview,
        pool: Pool,
        memory: GuestMemory,
        mode: PagingMode,
        known: KnownTables | None = None,
        views: tuple[View, View] | None = None,
    ) -> None:
        """``known``: the tables of this memory that were mirrored before. ``views``: what another mirror has left, to
        be overwritten in full; of a guest's next process, most tables in it are where they are needed."""
        self._known = known
        self.mode = mode
        self.memory = memory
        self._levels = levels_of(mode)
        self.end = 1 << (64 if len(self._levels) == 4 else 32)
        """Where the guest's linear space ends."""
        wraps = self.end == 1 << 32
        self.kernel, self.user = views or (View(ram, pool, wraps=wraps), View(ram, pool, wraps=wraps))
        self.space = FreeSpace(mode, memory)
        """Where the guest maps nothing."""
        self.busy = False
        """It is being brought up to date, and can't be missed now."""
        self.released = False
        self.on_exhausted: Callable[[Mirror], bool] | None = None
        """Asked when the pool has run out in the middle of a change: True if this mirror has been dropped for that."""
        self._format = mode.format
        self._root = mode.cr3 & self._format.root_mask if self._format else 0
        self._entry_size = self._format.entry_size if self._format else 0
        self._frame_mask = self._format.frame_mask if self._format else 0
        self._leaf = self._levels[-1] if self._levels else None
        self._ram = ram
        self._last_tables: dict[int, LastTable] = {}
        """By slot, where `touch` came by, until what it found there may be otherwise."""
        self.version = Version()
        """Changes whenever one of those is forgotten."""
        self._region = range(0)
        """The numbers of the region's pages, while it is mapped."""
        self._region_entries: Entries64 = np.empty(0, np.uint64)
        self._region_made_of: tuple[object, ...] = ()
        """What its entries were last made of: the same as before, as a rule, when the region moves."""
        self._executable: dict[bool, dict[int, dict[int, int]]] = {True: {}, False: {}}
        """By view (True: the kernel's) and slot: page number -> guest-physical page that was looked at."""

    # -- fetches -----------------------------------------------------------------------------

    def allow_fetches(self, linear: int, gpa: GPA, *, kernel: bool) -> None:
        """A linear page may be executed in a view from now on, while it maps this guest-physical page.

        Its entry is as it was until the page is synced.
        """
        page = page_number(linear)
        if self._last_tables.pop(page >> SLOT_SHIFT, None) is not None:
            self.version.change()
        self._executable[kernel].setdefault(page >> SLOT_SHIFT, {})[page] = gpa

    def forbid_fetches(self, linear: int, *, except_from: GPA) -> bool:
        """Other code at the same linear address must be looked at anew here; True if there was any."""
        page, found = page_number(linear), False
        for slots in self._executable.values():
            looked_at = slots.get(page >> SLOT_SHIFT, {})
            if looked_at.get(page, except_from) != except_from:
                del looked_at[page]
                found = True
        return found

    def close_page(self, linear: int, gpa: GPA, *, kernel: bool) -> None:
        """A page of a view is NX from now on, its entry at once, if this guest-physical page was looked at there."""
        page = page_number(linear)
        looked_at = self._executable[kernel].get(page >> SLOT_SHIFT, {})
        if looked_at.get(page) == gpa:
            del looked_at[page]
            _close(self.kernel if kernel else self.user, linear)

    def forget_fetches(self, *, kernel: bool) -> None:
        """Nothing in a view has been looked at: every page of it is NX from now on, its entries at once."""
        view = self.kernel if kernel else self.user
        for slot in self._executable[kernel].values():
            for page in slot:
                _close(view, canonical(page))
        self._executable[kernel].clear()

    # -- one page ----------------------------------------------------------------------------

    def entries_for(self, page: GuestPage, linear: int) -> tuple[int, int]:
        """The entries for a guest page in the kernel's and the user's view; 0 where it must not be."""
        frame = self.memory.to_host(page.gpa)
        if frame is None:
            return 0, 0  # an access faults, and the hypervisor finds that there is no memory
        kernel = frame & ADDRESS | DATA
        if page.accessed:
            kernel |= P | A
        user = kernel
        if page.dirty:
            if page.writable:
                kernel = user = kernel | W | D
            elif not self.mode.write_protect:
                kernel |= W | D  # such a kernel writes where it likes; the D bit must be set by such a write too
        number = linear >> PAGE_SHIFT & PAGES - 1
        slot, gpa = number >> SLOT_SHIFT, page.gpa & ~PAGE_MASK
        of_kernel, of_user = self._executable[True].get(slot), self._executable[False].get(slot)
        if (of_kernel or of_user) and not page.no_execute and self.memory.is_ram(gpa):
            if of_kernel and of_kernel.get(number) == gpa:
                kernel &= ~NX
            if of_user and of_user.get(number) == gpa:
                user &= ~NX
        return kernel, user if page.user else 0

    def map_page(self, linear: int, page: GuestPage | None) -> None:
        """Bring both views to what the guest's tables now say of one page."""
        kernel, user = (0, 0) if page is None else self.entries_for(page, linear)
        self.kernel.set(linear, kernel)
        self.user.set(linear, user)

    def guest_page(self, linear: int) -> GuestPage | None:
        """What the guest's tables say of a page, A and D bits included; None if not mapped.

        A reserved bit in an entry makes it map nothing: every access faults (SDM vol. 3, 4.7).
        """
        if linear >= self.end:
            return None
        fmt = self._format
        if fmt is None:
            there = self.memory.to_host(linear) is not None
            return GuestPage(linear, True, True, True, True) if there else None
        table, size = self._root, self._entry_size
        read = self.memory.read_entry
        rights, no_execute = W | U | A, 0
        for level in self._levels:
            entry = read(table + (linear >> level.shift & level.count - 1) * size, size)
            if entry is None or not entry & P:
                return None
            large = level.large and entry & PS
            if entry & (level.reserved_large if large else level.reserved):
                return None
            if level.permissions:
                rights &= entry
                no_execute |= entry & level.no_execute
            if not large and not level.leaf:
                table = entry & self._frame_mask
                continue
            frame = entry & self._frame_mask
            if large:
                frame = large_frame(fmt, entry, level.shift) | linear & (1 << level.shift) - PAGE_SIZE
            return GuestPage(
                frame, bool(rights & W), bool(rights & U), bool(rights & A), bool(entry & D), bool(no_execute)
            )
        raise AssertionError("a format's last level is always a leaf")

    def rights_above(self, page: int) -> tuple[int, int] | None:
        """W, U and A combined, and NX, of the entries that lead to the last-level table for a page number.

        None if there is no such table.
        """
        table, rights, no_execute = self._root, W | U | A, 0
        for level in self._levels[:-1]:
            index = page >> level.shift - PAGE_SHIFT & level.count - 1
            entry = self.memory.read_entry(table + index * self._entry_size, self._entry_size)
            if entry is None or not entry & P or level.is_reserved(entry) or (level.large and entry & PS):
                return None
            if level.permissions:
                rights &= entry
                no_execute |= entry & level.no_execute
            table = entry & self._frame_mask
        return rights, no_execute

    def map_entry(self, page: int, entry: int, above: int, no_execute: int) -> bool:
        """What `sync_page` does, for a page number whose last-level entry is known, with what `rights_above` said.

        False, and the mirror isn't what it should be yet, if that isn't so simple: it may take memory, for one.
        """
        leaf, kernel, user = self._leaf, 0, 0
        if self.released or leaf is None or page in self._region:
            return False
        if entry & P and not entry & leaf.reserved:
            slot, rights, gpa = page >> SLOT_SHIFT, above & entry, entry & self._frame_mask
            if slot in self._executable[True] or slot in self._executable[False]:
                flags = bool(rights & W), bool(rights & U), bool(rights & A), bool(entry & D)
                nx = bool(no_execute | entry & leaf.no_execute)
                kernel, user = self.entries_for(GuestPage(gpa, *flags, nx), page << PAGE_SHIFT)
            elif (frame := self.memory.to_host(gpa)) is not None:  # `entries_for` written out, for data
                kernel = frame & ADDRESS | DATA | (P | A if rights & A else 0)
                user = kernel if rights & U else 0
                if entry & D:
                    if rights & W:
                        kernel |= W | D
                        user |= W | D if user else 0
                    elif not self.mode.write_protect:
                        kernel |= W | D
        old = self.kernel.exchange(page, kernel)
        if not old or not kernel:
            self.space.touch(page, page + 1)
        return old >= 0 and self.user.exchange(page, user) >= 0

    def simple_table(self, frame: int, page: int, entry_size: int, above: int, ram_address: int) -> SimpleTable | None:
        """What `map_entry` does for the table in a page of RAM, as data, in as far as it is simple; None if nowhere.

        RAM begins at ``ram_address`` in our own memory.
        """
        leaf = self._leaf
        if self.released or leaf is None:
            return None
        kernel, user = [0, 0], [0, 0]
        for number in range(leaf.count >> SLOT_SHIFT):
            slot = (page >> SLOT_SHIFT) + number
            row, other = self.kernel.row_of(slot), self.user.row_of(slot)
            if row and slot not in self._executable[True] and slot not in self._executable[False]:
                kernel[number] = ram_address + (row << 3)
                user[number] = ram_address + (other << 3) if other else 0
        if not any(kernel):
            return None
        return SimpleTable(
            frame >> PAGE_SHIFT, entry_size, canonical(page), (kernel[0], kernel[1]), (user[0], user[1]),
            above & (W | U), leaf.reserved, self._frame_mask, 0 if self.mode.write_protect else W | D,
            *self.memory.low_frames,
        )  # fmt: skip

    def touch(self, linear: int, *, write: bool, user: bool) -> bool:
        """Do what the processor does at an access that the guest's tables allow, and map the page.

        That is: set A in every entry on the way, and D in the last for a write. False, and nothing done, where the
        guest's tables refuse the access, or anything else is out of the ordinary.
        """
        page = linear >> PAGE_SHIFT & PAGES - 1
        last = self._last_tables.get(page >> SLOT_SHIFT)
        if last is not None and linear < self.end and last.touch(page, write, user):
            return True
        fmt = self._format
        if fmt is None or self.released or linear >= self.end or page in self._region:
            return False
        table, size, read = self._root, self._entry_size, self.memory.read_entry
        rights, no_execute = W | U, 0
        unmarked: list[int] = []
        for level in self._levels:
            at = table + (linear >> level.shift & level.count - 1) * size
            entry = read(at, size)
            if entry is None or not entry & P:
                return False
            if level.leaf:
                above = rights
            large = level.large and entry & PS
            if entry & (level.reserved_large if large else level.reserved):
                return False
            if level.permissions:
                rights &= entry
                no_execute |= entry & level.no_execute
                if not entry & A:
                    unmarked.append(at)
            if not large and not level.leaf:
                table = entry & self._frame_mask
                continue
            frame = entry & self._frame_mask
            if large:
                frame = large_frame(fmt, entry, level.shift) | linear & (1 << level.shift) - PAGE_SIZE
            if (user and not rights & U) or (write and not rights & W and (user or self.mode.write_protect)):
                return False
            if self.memory.to_host(frame) is None:
                return False
            for place in unmarked:
                self.memory.set_bits(place, A)
            if write and not entry & D:
                self.memory.set_bits(at, A | D)
            dirty = write or bool(entry & D)
            found = GuestPage(frame, bool(rights & W), bool(rights & U), True, dirty, bool(no_execute))
            try:
                self.busy = True
                self.map_page(linear & ~PAGE_MASK, found)
                if level.leaf:
                    self._keep_last(page >> SLOT_SHIFT, linear, table, above)
            except PoolExhausted:
                self._give_up()
            finally:
                self.busy = False
            return True
        return False

    def _keep_last(self, slot: int, linear: int, table: int, above: int) -> None:
        """Note a last-level table that has been come by."""
        leaf = self._leaf
        if leaf is None or slot in self._last_tables:  # machine code may be using that one
            return
        if self._region and self._region[0] >> SLOT_SHIFT <= slot <= self._region[-1] >> SLOT_SHIFT:
            return
        gpa = table + (linear >> leaf.shift & leaf.count - SLOT_PAGES) * self._entry_size
        executed = frozenset().union(*(pages.get(slot, ()) for pages in self._executable.values()))
        self._last_tables[slot] = LastTable(
            self._ram, self.memory, leaf, self._frame_mask, self._entry_size, gpa, above, self.kernel, self.user, slot,
            executed, write_protect=bool(self.mode.write_protect),
        )  # fmt: skip

    def forget_last_tables(self) -> None:
        """What `touch` came by is looked for anew."""
        if self._last_tables:
            self._last_tables.clear()
            self.version.change()

    def hidden_slot(self, linear: int, ram_address: int) -> tuple[GPA, HiddenSlot] | None:
        """What `touch` knows of the slot that a page is in, as data, and where the guest's table is; None if nothing.

        RAM begins at ``ram_address`` in our own memory.
        """
        last = self._last_tables.get(page_number(linear) >> SLOT_SHIFT)
        return None if last is None else last.as_data(linear, self.version.number, ram_address)

    def sync_page(self, linear: int) -> None:
        """Mirror one page anew, unless the region lies there."""
        if self.released or linear >> PAGE_SHIFT & PAGES - 1 in self._region:
            return
        self.busy = True
        try:
            self.map_page(linear, self.guest_page(linear))
        except PoolExhausted:
            self._give_up()
        finally:
            self.busy = False

    # -- many pages --------------------------------------------------------------------------

    def sync_range(self, linear: int, size: int) -> None:
        """Mirror a range of whole pages anew. Where an upper level maps nothing, that costs next to nothing."""
        if size == PAGE_SIZE:
            self.sync_page(linear)
            return
        self.forget_last_tables()
        first = page_number(linear)
        end = min(first + (size >> PAGE_SHIFT), PAGES)
        if end - first <= FEW_PAGES:
            for page in range(first, end):
                self.sync_page(canonical(page))
            return
        if self.released:
            return
        self.busy = True
        try:
            self._sync_many(first, end)
        except PoolExhausted:
            self._give_up()
        finally:
            self.busy = False

    def _give_up(self) -> None:
        """There is no memory for a change: raise what was caught, unless this mirror can be missed."""
        if self.on_exhausted is None or not self.on_exhausted(self):
            raise

    def _sync_many(self, first: int, end: int) -> None:
        leaf = self._leaf
        batch = Batch(self.memory, leaf, write_protect=self.mode.write_protect, known=self._known)
        if leaf is None:
            self._collect_linear(batch, first, first, min(end, 1 << 20), P | W | U | A | D)
        else:
            self._collect(batch, 0, self._root, 0, first, end, W | U | A, 0)
        batch.apply(self._store)

    def _collect(
        self, batch: Batch, depth: int, table: int, base: int, first: int, end: int, above: int, no_execute: int
    ) -> None:
        """Put into a batch what a table maps of the pages [first, end), and clear the rest of them.

        ``base`` is the table's first page; ``above`` has W, U and A combined, ``no_execute`` NX, of the levels over it.
        """
        level = self._levels[depth]
        pages = level.pages
        first, end = max(first, base), min(end, base + level.count * pages)
        entries = self.memory.table(table, level.count, self._entry_size)
        if entries is None:
            self._clear(first, end)
            return
        if level.leaf:
            batch.add_table(base >> SLOT_SHIFT, table, above, no_execute)
            return
        low, high = (first - base) // pages, (end - 1 - base) // pages + 1
        done = first
        part = entries[low:high]
        for index in np.flatnonzero(part & P).tolist():
            entry = int(part[index])
            if level.is_reserved(entry):
                continue
            start = base + (low + index) * pages
            self._clear(done, start)
            done = start + pages
            rights, nx = (above & entry, no_execute | entry & level.no_execute) if level.permissions else (above, 0)
            if level.large and entry & PS:
                assert self._format is not None
                gpa = large_frame(self._format, entry, level.shift) >> PAGE_SHIFT
                skipped = max(first - start, 0)
                flags = rights | nx | P | entry & D
                self._collect_linear(batch, start + skipped, gpa + skipped, gpa + min(pages, end - start), flags)
            else:
                self._collect(batch, depth + 1, entry & self._frame_mask, start, first, end, rights, nx)
        self._clear(done, end)

    def _collect_linear(self, batch: Batch, page: int, gpa_page: int, gpa_end: int, flags: int) -> None:
        """Pages in a row, as far as there is anything behind them; the others are cleared."""
        done = page
        for chunk in self.memory.chunks(gpa_page, gpa_end):
            start = page - gpa_page + chunk
            self._clear(done, start)
            batch.add_linear(start >> SLOT_SHIFT, chunk, flags)
            done = start + SLOT_PAGES
        self._clear(done, page + gpa_end - gpa_page)

    def _clear(self, first: int, end: int) -> None:
        if first < end:
            self.kernel.clear(first << PAGE_SHIFT, end - first << PAGE_SHIFT)
            self.user.clear(first << PAGE_SHIFT, end - first << PAGE_SHIFT)

    def _store(self, slots: Sequence[int], guest: Entries64, kernel: Entries64, user: Entries64) -> None:
        """Put translated rows into the views, with what may be executed, and with the region."""
        place = {slot: row for row, slot in enumerate(slots)}
        for rows, looked_at in ((kernel, self._executable[True]), (user, self._executable[False])):
            for slot in [slot for slot in looked_at if slot in place]:
                self._open(rows[place[slot]], guest[place[slot]], looked_at[slot])
            for page, entry in zip(self._region, self._region_entries, strict=False):
                if page >> SLOT_SHIFT in place:
                    rows[place[page >> SLOT_SHIFT], page & _INDEX] = entry
        self.kernel.store(slots, kernel)
        self.user.store(slots, user)

    def _open(self, row: Entries64, guest: Entries64, looked_at: dict[int, int]) -> None:
        """Clear NX where a page maps the code that was looked at."""
        for page, gpa in looked_at.items():
            index = page & _INDEX
            leaf = int(guest[index])
            if row[index] and leaf & ADDRESS == gpa and not leaf & NX and self.memory.is_ram(gpa):
                row[index] &= ~np.uint64(NX)

    # -- the region --------------------------------------------------------------------------

    @property
    def has_region(self) -> bool:
        return bool(self._region)

    def set_region(self, linear: int, frames: list[HPA], code_pages: int, *, writable_code: bool = False) -> None:
        """Map the region, which isn't mapped now, into both views; its first ``code_pages`` pages may be executed.

        Those are read-only unless ``writable_code``; the others can be written to.
        """
        self.forget_last_tables()
        made_of = frames, code_pages, writable_code
        if made_of != self._region_made_of:
            row = np.array(frames, np.uint64)
            row[:code_pages] |= np.uint64(P | A | REGION | (W | D if writable_code else 0))
            row[code_pages:] |= np.uint64(P | A | REGION | W | D | NX)
            self._region_entries, self._region_made_of = row, (list(frames), code_pages, writable_code)
        first = page_number(linear)
        self._region = range(first, first + len(frames))
        self.kernel.put(first, self._region_entries)
        self.user.put(first, self._region_entries)

    def clear_region(self, linear: int, pages: int) -> None:
        """Take the region, of so many pages, out; what the guest maps there appears."""
        self.forget_last_tables()
        first = page_number(linear)
        if self._region == range(first, first + pages):
            self._region = range(0)
        if self.released:
            return
        nothing = np.zeros(pages, np.uint64)
        self.kernel.put(first, nothing)
        self.user.put(first, nothing)
        for page in self.space.mapped(first, first + pages) if self._levels else range(first, first + pages):
            self.sync_page(canonical(page))
        for at in {first, first + pages - 1} if not self.released else ():
            self.kernel.trim(canonical(at))
            self.user.trim(canonical(at))

    def release(self) -> None:
        """Give all tables back; from now on nothing is mirrored here."""
        for view in self.leave():
            view.release()

    def leave(self) -> tuple[View, View]:
        """From now on nothing is mirrored here; the views are the caller's, with all that is in them."""
        self.released = True
        self.forget_last_tables()
        return self.kernel, self.user


def _close(view: View, linear: int) -> None:
    """What the guest maps at a linear address isn't to be fetched from in a view."""
    entry = view.get(linear)
    if entry & MIRRORED:
        view.set(linear, entry | NX)
