"""The write monitor: every store to a page that the guest uses as a page table is seen (step 40, claim 3).

Guest table pages are write-protected in *physical* memory, so a store is caught through whatever
alias and by whatever instruction it comes. The store is committed by the processor room and only
recorded here; `drain` hands the records on when the processor has stopped at the next block. Stores that nothing can
notice before the next exit are *deferred*: they don't stop the processor. Nor do those that `QuickStores` follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hvproto.addresses import GPA, HPA, PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.processor.processor import Processor


@dataclass(frozen=True, slots=True)
class TableStore:
    """A store to a watched page: guest-physical address, size in bytes (within one page)."""

    gpa: GPA
    size: int
    value: int | None = None
    """What was stored, where what is there now may be something else already."""
    deferred: bool = False
    """No processor can have cached what was there before."""


class Monitor:
    """Which guest-physical pages are watched, by how many users each, and what was stored there."""

    def __init__(self, processor: Processor, memory: GuestMemory) -> None:
        self._processor = processor
        self._memory = memory
        self._users: dict[GPA, int] = {}
        self.is_urgent: Callable[[GPA, int], bool] = lambda _gpa, _size: False
        """Whether the guest's next instruction can depend on a store (address, bytes within a page): it must be seen
        before that."""
        self.is_idle: Callable[[GPA], bool] = lambda _page: False
        """Whether nothing that the processor has loaded depends on the page: no store to it needs to end the run."""
        self.can_wait: Callable[[GPA, int], bool] = lambda _gpa, _size: False
        """Whether nothing that the guest can do before its next exit depends on a store (address, bytes)."""
        self.is_nothing: Callable[[GPA, int], bool] = lambda _gpa, _size: False
        """Whether a store (address, bytes) is none that anybody watches for."""
        self.follows: Callable[[GPA, int], bool] = lambda _gpa, _size: False
        """Follows a store (address, bytes) at once, in the midst of the run; False if that can't be done."""
        self.presses = False
        """Whether a record is of a store that can't wait."""
        self.records: list[TableStore] = []
        """What is to be drained, but for what the processor has deferred."""
        self.touched: set[GPA] = set()
        """The pages whose users have changed since whoever looks here emptied it."""
        self.one_by_one: Callable[[], bool] = lambda: True
        """Whether deferred stores are wanted one by one; if not, those to one page may come as one that covers them."""
        memory.on_write = self._on_own_write
        self.attach()

    def attach(self) -> None:
        """Its guest gets the processor, whose stores may have been another one's so far."""
        self._processor.on_protected_store = self._on_protected_store
        self._processor.is_urgent = self._is_urgent

    def close(self) -> None:
        """Watch nothing any more."""
        self.pull()
        for page in sorted(self._users):
            self._users[page] = 1
            self.unwatch(page)
        if self._processor.on_protected_store == self._on_protected_store:
            self._processor.on_protected_store = None
        self._memory.on_write = None

    @property
    def watched(self) -> frozenset[GPA]:
        """The guest-physical pages that are watched now."""
        return frozenset(self._users)

    @property
    def pending(self) -> bool:
        """Whether there is something to drain."""
        return bool(self.records) or self._processor.engine.deferred.waits

    @property
    def has_only_deferred(self) -> bool:
        """Whether there is something to drain, and nothing that was to be followed at once."""
        return not self.records and self._processor.engine.deferred.waits

    def watch(self, gpa: int) -> None:
        """One more user of the page at this guest-physical address."""
        self.watch_all((GPA(gpa & ~PAGE_MASK),))

    def watch_all(self, pages: Sequence[GPA]) -> None:
        """One more user of each of these pages; pages side by side in the host's memory are protected in one go."""
        new = []
        for page in pages:
            count = self._users.get(page, 0)
            self._users[page] = count + 1
            if count == 0:
                new.append(page)
        self.touched.update(pages)
        self._protect_all(new, on=True)

    def unwatch(self, gpa: int) -> None:
        """One user less of the page at this guest-physical address."""
        self.unwatch_all((GPA(gpa & ~PAGE_MASK),))

    def unwatch_all(self, pages: Sequence[GPA]) -> None:
        """One user less of each of these pages."""
        gone = []
        for page in pages:
            count = self._users.get(page, 0)
            if count > 1:
                self._users[page] = count - 1
            elif count == 1:
                del self._users[page]
                gone.append(page)
        self.touched.update(pages)
        self._protect_all(gone, on=False)

    def users(self, page: GPA) -> int:
        """How many users watch this page."""
        return self._users.get(page, 0)

    def _protect_all(self, pages: Iterable[GPA], *, on: bool) -> None:
        frames = [frame for page in pages if (frame := self._memory.to_host(page)) is not None]
        start = end = 0
        for frame in sorted(frames):
            if frame != end:
                self._protect(start, end - start, on=on)
                start = frame
            end = frame + PAGE_SIZE
        self._protect(start, end - start, on=on)

    def _protect(self, start: int, size: int, *, on: bool) -> None:
        """Hear of stores to so many bytes of whole pages from an HPA on, or no longer; at first, of each at once."""
        if size:
            self._processor.engine.protect(start, size, on=on)
            self._processor.engine.deferred.unmark(start, size)

    def _on_protected_store(self, physical: int, size: int) -> None:
        gpa = self._memory.to_guest(HPA(physical))
        if gpa is not None:
            self.pull()
            page = GPA(gpa & ~PAGE_MASK)
            if self.is_idle(page):
                if not self.one_by_one():
                    self._processor.engine.deferred.mute(physical)
                    self.records.append(TableStore(page, PAGE_SIZE, deferred=True))
                    return
                value = int.from_bytes(self._memory.read(gpa, size) or b"", "little")
                self.records.append(TableStore(gpa, size, value, deferred=True))
                return
            if self.is_nothing(gpa, size) or self.follows(gpa, size):
                return
            if self.can_wait(gpa, size):
                # Whatever comes to this page before it is followed can wait, too.
                self._processor.engine.deferred.mute(physical)
                self.records.append(TableStore(page, PAGE_SIZE))
                return
            self.records.append(TableStore(gpa, size))
            self.presses = True
            self._processor.request_stop()

    def _is_urgent(self, physical: int, size: int) -> bool:
        gpa = self._memory.to_guest(HPA(physical))
        return gpa is not None and self.is_urgent(gpa, size)

    def _on_own_write(self, gpa: GPA, size: int) -> None:
        if GPA(gpa & ~PAGE_MASK) in self._users:
            self.pull()
            self.presses = True
            self.records.append(TableStore(gpa, size))

    def pull(self) -> None:
        """Take over what the processor has deferred: of this guest, so before another one gets the processor."""
        deferred = self._processor.engine.deferred
        for physical, size, value in deferred.take() if self.one_by_one() else deferred.take_ranges():
            gpa = self._memory.to_guest(HPA(physical))
            if gpa is not None:
                self.presses = True
                self.records.append(TableStore(gpa, size, value, deferred=True))

    def drain(self) -> list[TableStore]:
        """What was stored since the last call, in order."""
        self.pull()
        self._processor.engine.deferred.unmute()
        records, self.records, self.presses = self.records, [], False
        return records
