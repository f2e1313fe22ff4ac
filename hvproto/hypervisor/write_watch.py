"""Who wants to hear of a guest's stores to some of its pages: tracking for a migration, copies on write, integrity.

The pages are write-protected in physical memory, as page tables are, so a store is heard of through whatever alias and
by whatever instruction it comes; also those that the hypervisor makes for the guest, A and D bits among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hvproto.addresses import GPA, PAGE_MASK
from hvproto.errors import BadInput
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.monitor import Monitor, TableStore

Listener = Callable[[GPA, int], None]
"""Called with the GPA and the size in bytes of a store, once it is done and the basic block that it is in has ended:
the processor stands still, memory can be read and written, and the guest can be ended."""


class WriteWatch:
    """Some pages of a guest and the function that is called with each store to them."""

    def __init__(self, watches: WriteWatches, listener: Listener) -> None:
        self._watches = watches
        self.listener = listener
        self._pages: set[GPA] = set()

    @property
    def pages(self) -> tuple[GPA, ...]:
        """Those that are watched now, in order."""
        return tuple(sorted(self._pages))

    def add(self, pages: Iterable[int]) -> None:
        """Watch the pages of these GPAs as well. Raises BadInput where the guest has no memory."""
        new = sorted({GPA(page & ~PAGE_MASK) for page in pages} - self._pages)
        self._watches.watch(self, new)
        self._pages.update(new)

    def drop(self, page: int) -> None:
        """Watch the page of this GPA no more; harmless if it isn't watched."""
        gpa = GPA(page & ~PAGE_MASK)
        if gpa in self._pages:
            self._pages.remove(gpa)
            self._watches.unwatch(self, gpa)

    def close(self) -> None:
        """Watch nothing more."""
        for page in self.pages:
            self.drop(page)


class WriteWatches:
    """All of one guest's."""

    def __init__(self, monitor: Monitor, memory: GuestMemory) -> None:
        self._monitor, self._memory = monitor, memory
        self.of_page: dict[GPA, tuple[WriteWatch, ...]] = {}
        self._marked: list[GPA] = []
        self.on_watch: Callable[[], None] = lambda: None
        """Called when more pages are watched."""

    def new(self, pages: Iterable[int], listener: Listener) -> WriteWatch:
        watch = WriteWatch(self, listener)
        watch.add(pages)
        return watch

    def watch(self, watch: WriteWatch, pages: list[GPA]) -> None:
        """To be called by a WriteWatch."""
        for page in pages:
            if not self._memory.is_ram(page):
                raise BadInput(f"the guest has no memory at GPA {page:#x} whose stores could be heard of")
        for page in pages:
            self.of_page[page] = (*self.of_page.get(page, ()), watch)
        self._monitor.watch_all(pages)
        self.on_watch()

    def unwatch(self, watch: WriteWatch, page: GPA) -> None:
        """To be called by a WriteWatch."""
        left = tuple(each for each in self.of_page[page] if each is not watch)
        if left:
            self.of_page[page] = left
        else:
            del self.of_page[page]
        self._monitor.unwatch(page)

    def mark(self, gpa: GPA) -> None:
        """The hypervisor has set bits in a byte of a page table that is watched."""
        self._marked.append(gpa)

    def tell(self, stores: Iterable[TableStore]) -> None:
        """Have all who watch these pages hear of the stores, and of what was marked before them."""
        if not self.of_page:
            return
        marked, self._marked = self._marked, []
        for gpa, size in [*((gpa, 1) for gpa in marked), *((store.gpa, store.size) for store in stores)]:
            for watch in self.of_page.get(GPA(gpa & ~PAGE_MASK), ()):
                watch.listener(gpa, size)
