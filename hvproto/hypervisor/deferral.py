"""Which of the guest's table pages may have their stores deferred: kept up to date as tables and region change.

A last-level entry that isn't present, or not accessed yet, is in the mirror as one that faults. So a store to it needs
to be followed only before the next exit is handled - every access that depends on it comes here as a page fault -, and
a kernel that fills a table with a thousand entries is stopped once instead of a thousand times. And where a guest's
descriptor table shares its page with variables, stores to those matter to nobody.
"""

from __future__ import annotations

from hvproto.addresses import GPA, PAGE_MASK, PAGE_SHIFT
from hvproto.hypervisor.descriptors import ShadowDescriptors
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror, page_number
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.tables import GuestTables
from hvproto.processor.deferred_stores import DeferredStores


class Deferral:
    """Tells the processor's `DeferredStores` the pages of one guest."""

    def __init__(
        self,
        stores: DeferredStores,
        memory: GuestMemory,
        monitor: Monitor,
        tables: GuestTables,
        descriptors: ShadowDescriptors,
    ) -> None:
        self._stores = stores
        self._pages = stores.pages
        self._descriptors = descriptors
        self._memory = memory
        self._monitor = monitor
        self._tables = tables
        self._place = self._place_of_region()
        self._present: Mirror | None = None

    def _place_of_region(self) -> tuple[int, int]:
        region = self._descriptors.region  # it may shrink, and is another one then
        first = page_number(region.base)
        return first, first + region.pages

    def enter(self) -> None:
        """The guest gets the processor, which may have served another one: what `watch_part` says is that one's.

        Until it is said anew, every store to these pages is heard of.
        """
        for start, _ in self._descriptors.extents:
            page = GPA(start & ~PAGE_MASK)
            self._monitor.touched.add(page)
            frame = self._memory.to_host(page)
            if frame is not None and frame >> PAGE_SHIFT < len(self._pages):
                self._pages[frame >> PAGE_SHIFT] = 0

    def close(self) -> None:
        """Defer no store to any page of this guest."""
        for frame in self._memory.frames:
            if frame >> PAGE_SHIFT < len(self._pages):
                self._pages[frame >> PAGE_SHIFT] = 0

    def update(self, present: Mirror) -> None:
        """To be called before the guest goes on, after its tables, what is watched, the region or CR3 have changed."""
        place = self._place_of_region()
        touched = self._monitor.touched
        if place != self._place or present is not self._present:
            mirrors = present, self._present or present
            touched.update(self._tables.tables_of(*place, mirrors))
            if place != self._place:
                touched.update(self._tables.tables_of(*self._place, mirrors))
            self._place, self._present = place, present
        for page in touched:
            self._mark(page, present)
        touched.clear()

    def _mark(self, page: GPA, present: Mirror) -> None:
        users = self._monitor.users(page)
        if not users:
            return  # what is said of it counts while it is watched
        frame = self._memory.to_host(page)
        if frame is not None and frame >> PAGE_SHIFT < len(self._pages):
            entry_size = self._tables.deferrable(page, users, present, self._place)
            self._pages[frame >> PAGE_SHIFT] = entry_size
            extents = self._descriptors.extents
            if len(extents) == 1 and extents[0][0] & ~PAGE_MASK == page and users == 1:
                start, end = extents[0]
                self._stores.watch_part(frame | start & PAGE_MASK, frame + end - page)
