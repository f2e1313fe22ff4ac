"""What a mirrored guest stores to its tables, descriptors and code, and when it is followed: steps 40 to 46.

Between two runs, all of it (`follow`); in the midst of one, what nothing can have noticed so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvproto import events
from hvproto.addresses import GPA, PAGE_MASK
from hvproto.events import EventBus
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.monitor import TableStore
from hvproto.hypervisor.quick_stores import QuickStores
from hvproto.hypervisor.relocation import first_conflict
from hvproto.hypervisor.tables import joined
from hvproto.processor.processor import Processor

if TYPE_CHECKING:
    from hvproto.hypervisor.address_space import AddressSpace

_TOLD = (events.PageTableWrite, events.NoConflict, events.GuestMappings)
"""What a store to a page table is told by, if it moves nothing."""


class FollowedStores:
    """Of one guest."""

    def __init__(self, space: AddressSpace, processor: Processor, memory: GuestMemory, bus: EventBus) -> None:
        self._space = space
        self._executed = space.executed
        self._processor = processor
        self._memory = memory
        self._bus = bus
        monitor = space.monitor
        monitor.is_urgent, monitor.follows = self._is_urgent, self._executed.follow_at_once
        monitor.can_wait, monitor.is_nothing = self._can_wait, self._is_nothing
        self.deferred_count = processor.engine.deferred.count
        """A cell: how many stores wait in the processor."""
        self.quick = QuickStores(
            processor.engine, space.ram, memory, monitor, space.tables, self.follow_deferred,
            lambda: bus.wants_any(*_TOLD),
        )  # fmt: skip

    @property
    def wait(self) -> bool:
        """Whether there are stores to follow."""
        return bool(self._executed.marked or self._space.monitor.records or self.deferred_count.value)

    @property
    def press(self) -> bool:
        """... before whatever the guest does that loads no segment, and stays at its level."""
        return bool(self._executed.marked or self._space.monitor.presses or self.deferred_count.value)

    def _is_urgent(self, gpa: GPA, size: int) -> bool:
        """Whether what a store changes can matter before the basic block ends: a descriptor, or the block itself.

        No processor notices a change of a page table before a serializing instruction unless the entry wasn't present
        or accessed; then the next access through it faults here, and is looked at after the store.
        """
        if self._executed.is_in_block(gpa, size):
            return True
        return self._space.descriptors.is_hit(gpa, size) and not self._can_wait(gpa, size)

    def _can_wait(self, gpa: GPA, size: int) -> bool:
        """Whether a store changes nothing but descriptors, in a kernel whose loads of segments are all exits.

        A kernel that switches tasks changes its TSS's descriptor byte by byte: each would end the run.
        """
        return (
            self._space.kind is not None
            and self._space.kind.guards_loads
            and self._space.descriptors.is_hit(gpa, size)
            and self._has_only_descriptors(gpa)
        )

    def is_descriptor(self, gpa: int) -> bool:
        """Whether a byte is one of the guest's descriptors, in a page that is nothing else to its hypervisor."""
        return self._space.descriptors.is_hit(gpa, 1) and self._has_only_descriptors(GPA(gpa))

    def _is_nothing(self, gpa: GPA, size: int) -> bool:
        """Whether a store to a watched page is to what lies beside the guest's descriptors."""
        return self._has_only_descriptors(gpa) and not self._space.descriptors.is_hit(gpa, size)

    def _has_only_descriptors(self, gpa: GPA) -> bool:
        page = GPA(gpa & ~PAGE_MASK)
        return self._space.monitor.users(page) == self._space.descriptors.pieces_in(page)

    def follow(self) -> None:
        """Steps 40 to 46 for every store to a watched page since the last time."""
        records = self._space.monitor.drain()
        if self._executed.marked:
            self._executed.follow(self._executed.marked)
            self._executed.marked = []
        self._space.writes.tell(records)
        if not records:
            if self._space.monitor.touched:
                self.update()
            return
        tables_changed = False
        deferred: list[TableStore] = []
        at_once: list[TableStore] = []
        for store in records:
            if store.deferred:
                deferred.append(store)
                continue
            if deferred:
                self._follow_deferred_stores(deferred)
                deferred = []
            at_once.append(store)
            if self._space.tables.is_table(store.gpa):
                self._follow_table_store(store)
                tables_changed = True
            if self._space.descriptors.is_hit(store.gpa, store.size):
                self._space.descriptors_changed = True
        if deferred:
            self._follow_deferred_stores(deferred)
        if at_once:
            self._executed.follow(at_once)
        if tables_changed:
            self._space.show_outline(len(at_once))
            self._processor.engine.flush_tlb()
        if self._space.descriptors_changed and not self._space.paging_changed:
            self._space.descriptors_changed = False
            self._space.descriptors.reload()
        self.update()

    def update(self) -> None:
        """What can be done with stores in the next run: to be called before it, and after each change."""
        self._space.deferral.update(self._space.mirror)
        self.quick.update(self._space.mirror)

    def follow_deferred(self) -> None:
        """Follow what waits, if all of it is deferred: that moves nothing, and changes no descriptor and no code."""
        if self._space.monitor.has_only_deferred and not self._executed.marked:
            self._follow_deferred_stores(self._space.monitor.drain())
            self._space.deferral.update(self._space.mirror)

    def follow_waiting(self) -> None:
        """Follow, in the midst of a run, what waits for a segment to be loaded, if nothing of it presses.

        Whether such a load goes on in its block must not depend on who has drained the records before.
        """
        if self._space.monitor.records and not self.press:
            self.follow_descriptors()

    def follow_descriptors(self) -> None:
        """... where all that was stored to is descriptors, or has been deferred."""
        records = self._space.monitor.drain()
        self._follow_deferred_stores([store for store in records if store.deferred])
        if any(self._space.descriptors.is_hit(store.gpa, store.size) for store in records if not store.deferred):
            self._space.descriptors.reload(only_stored=True)
        self._space.deferral.update(self._space.mirror)

    def _follow_deferred_stores(self, stores: Sequence[TableStore]) -> None:
        """Steps 40 and 44 for stores that nothing can have noticed so far, and that are nowhere near the region."""
        for change in joined(self._space.tables.changes_of(stores)):
            change.mirror.sync_range(change.linear, change.size)
        bus, now = self._bus, self._processor.now
        if not bus.wants(events.PageTableWrite) and not bus.wants(events.NoConflict):
            return
        for store in stores:
            bus.emit(events.PageTableWrite(now, store.gpa, store.size, store.value or 0))
            bus.emit(events.NoConflict(now, store.gpa))
        self._space.show_outline(len(stores))

    def _follow_table_store(self, store: TableStore) -> None:
        now, region = self._processor.now, self._space.region
        if self._bus.wants(events.PageTableWrite):
            value = int.from_bytes(self._memory.read(store.gpa, store.size) or b"", "little")
            self._bus.emit(events.PageTableWrite(now, store.gpa, store.size, value))
        conflict = None
        for change in self._space.tables.changes(store):
            if change.mirror is self._space.mirror and conflict is None:
                conflict = first_conflict(self._space.mirror, region.base, region.size, change.linear, change.size)
            change.mirror.sync_range(change.linear, change.size)
        if conflict is None:
            if self._bus.wants(events.NoConflict):
                self._bus.emit(events.NoConflict(now, store.gpa))
        else:
            self._space.relocate(conflict, f"a store to the page table at GPA {store.gpa:#010x}")
