"""What a mirrored guest runs in: the mirror of its present root, the region in it, and the traps in its code.

What the guest stores to its tables, descriptors and code is followed here (steps 40 to 46).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hvproto import events
from hvproto.addresses import GPA, GVA, HPA, PAGE_MASK, PAGE_SIZE
from hvproto.errors import NoRoom, RegionIsFixed, Where
from hvproto.events import EventBus
from hvproto.hypervisor.code import CodeWatch, Place
from hvproto.hypervisor.deferral import Deferral
from hvproto.hypervisor.descriptors import ShadowDescriptors
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.layout import FULL, SMALL
from hvproto.hypervisor.mirror import ADDRESS, MIRRORED, Mirror
from hvproto.hypervisor.monitor import Monitor, TableStore
from hvproto.hypervisor.outline import Outline
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.quick_stores import QuickStores
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.relocation import (
    DEFAULT_POLICY,
    Move,
    NoHole,
    RegionFixed,
    RelocationPolicy,
    find_hole,
    first_conflict,
)
from hvproto.hypervisor.sensitive import CodeKind, Decoder
from hvproto.hypervisor.tables import GuestTables, joined
from hvproto.hypervisor.view import View
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.hypervisor.write_watch import WriteWatches
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Raised
from hvproto.processor.hidden_faults import SLOT_SHIFT as HIDDEN_SLOT_SHIFT
from hvproto.processor.paging import NX, Access, P, PagingMode, W
from hvproto.processor.processor import Processor
from hvproto.processor.settings import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, Setting

_SHOWN = P | MIRRORED
_OF_STORES = (events.PageTableWrite, events.NoConflict, events.GuestMappings)
"""What a store to a page table is told by, if it moves nothing."""


class AddressSpace:
    """Mirror, region and code of one guest. ``where`` says where the guest stands, for errors and nothing else."""

    def __init__(
        self,
        processor: Processor,
        ram: memoryview,
        memory: GuestMemory,
        frames: list[HPA],
        cpu: VirtualCpu,
        bus: EventBus,
        where: Callable[[], Where],
        policy: RelocationPolicy = DEFAULT_POLICY,
    ) -> None:
        self._processor = processor
        self._memory = memory
        self._cpu = cpu
        self._bus = bus
        self._where = where
        self.policy = policy
        self.may_shrink = False
        """Whether the region may make do with one page where the guest leaves no room for six."""
        self.history: list[Move] = []
        """The region's moves because of conflicts, in order."""
        self._ram = ram
        self.pool = Pool(ram, frames)
        self.region = Region(ram, [self.pool.allocate() for _ in range(FULL.pages)])
        self.monitor = Monitor(processor, memory)
        self.writes = WriteWatches(self.monitor, memory)
        self.writes.on_watch = self._forget_last_tables
        self.monitor.one_by_one = lambda: bus.wants(events.PageTableWrite) or bus.wants(events.NoConflict)
        self.monitor.is_urgent = self._is_urgent
        self.tables = GuestTables(ram, self.pool, memory, self.monitor)
        self.tables.may_lag = lambda: not self.monitor.one_by_one()
        self.monitor.is_idle = self.tables.is_idle
        self.monitor.can_wait, self.monitor.is_nothing = self._can_wait, self._is_nothing
        self.monitor.follows = self._follow_code_store
        self.descriptors = ShadowDescriptors(cpu, self.region, self.monitor)
        self.deferral = Deferral(processor.engine.deferred, memory, self.monitor, self.tables, self.descriptors)
        self.quick_stores = QuickStores(
            processor.engine,
            ram,
            memory,
            self.monitor,
            self.tables,
            self.follow_deferred,
            lambda: bus.wants_any(*_OF_STORES),
        )
        self.deferred_count = processor.engine.deferred.count
        """A cell: how many stores wait in the processor."""
        self.decoder = Decoder()
        self.code = CodeWatch(processor, self.decoder, memory)
        self._code_at: dict[GVA, GPA | None] = {}
        """What has been executed at a linear address, if it was always the same: a kernel's code, in all spaces."""
        self.marked_code: list[TableStore] = []
        """A and D bits set in pages that are executed, too, which has to be followed."""
        self.in_kernel_view = True
        self._is_present = False
        """Whether the guest has the processor."""
        self._kind: CodeKind | None = None
        self._paging_changed = self._descriptors_changed = False
        self._preferred: GVA | None = None
        self.mirror: Mirror
        self._outline = Outline(bus)
        self._hidden, self._ram_address = processor.engine.hidden_faults, processor.engine.ram_address

    def start(self) -> None:
        """The guest's kernel is in memory: find a place for the region, and mirror what there is."""
        self.monitor.drain()
        self._memory.on_bits = self._on_bits
        self._cpu.on_bits_set = lambda linear: self.mirror.sync_page(linear & ~PAGE_MASK)
        self._cpu.on_setting = self._on_setting
        self._cpu.at_hand = self._at_hand
        self.mirror = self.tables.mirror_for(self.mode())
        wanted = self._preferred
        free = wanted is not None and self.mirror.space.is_free(wanted, self.region.pages)
        self.region.rebase(wanted if wanted is not None and free else self.hole())
        self._map_region()
        self.descriptors.reload(anew=True)

    def prefer(self, base: GVA, *, small: bool) -> None:
        """Before `start`: where the region is to go if there is nothing else, and whether it has shrunk already."""
        self._preferred = base
        if small:
            self.region = self.descriptors.region = Region(self._ram, [self.pool.allocate()], SMALL)

    def enter(self) -> None:
        """The guest gets the processor."""
        self._is_present = True
        self._tell_mirror()
        self.monitor.attach()
        self.deferral.enter()
        self.quick_stores.enter()

    def leave(self) -> None:
        """... and somebody else gets it."""
        self.quick_stores.leave()
        self.monitor.pull()
        self._processor.engine.deferred.unmute()  # what is muted is noted, and pages may be others' by the next drain
        self._is_present = False
        if self._hidden is not None:
            self._hidden.set_present(None)

    def close(self) -> None:
        """Leave nothing behind in the processor: no traps, no watched pages. The frames are the owner's again."""
        self.code.close()
        self.monitor.close()
        self.deferral.close()

    def _on_setting(self, setting: Setting) -> None:
        if setting in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER):
            self._paging_changed = True
        if setting in (Setting.GDTR, Setting.CR0):
            self._descriptors_changed = True

    def _at_hand(self, linear: int, write: bool, user: bool) -> GPA | None:
        """What the mirror shows, it shows since the guest's tables allow it, with A and D set."""
        if self._paging_changed or self.monitor.pending:
            return None
        entry = (self.mirror.user if user else self.mirror.kernel).get(linear)
        if entry & _SHOWN != _SHOWN or (write and not entry & W):
            return None
        return self._memory.to_guest(entry & ADDRESS | linear & PAGE_MASK)

    def place(self, linear: int, size: int, view: View, *, write: bool = False) -> int | None:
        """The HPA of so many bytes of RAM that the guest may access now through a view with no effect on its tables.

        None where a page ends before them, the view doesn't show them, or a store there has to be heard of.
        """
        entry = view.get(linear)
        if entry & _SHOWN != _SHOWN or (write and not entry & W) or (linear & PAGE_MASK) + size > PAGE_SIZE:
            return None
        at: int = entry & ADDRESS | linear & PAGE_MASK
        if at + size > len(self._ram) or (write and self.is_watched(at)):
            return None
        return at

    def mode(self, loaded: int | None = None) -> PagingMode:
        """What tells one mirror from another: the bits of the control registers that a walk depends on.

        ``loaded``: what CR3 is about to be loaded with.
        """
        cr0, cr3, cr4, efer = (self._cpu.control(s) for s in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER))
        cr3 = cr3 if loaded is None else loaded
        if not cr0 & CR0_PG:
            return PagingMode(0, 0, 0, 0)
        return PagingMode(cr0 & (CR0_PG | CR0_WP), cr3 & ~0x1F, cr4 & (CR4_PSE | CR4_PAE), efer)

    @property
    def has_stores(self) -> bool:
        """Whether there are stores to follow."""
        return bool(self.marked_code or self.monitor.records or self.deferred_count.value)

    @property
    def has_pressing_stores(self) -> bool:
        """... before whatever the guest does that loads no segment, and stays at its level."""
        return bool(self.marked_code or self.monitor.presses or self.deferred_count.value)

    @property
    def kind(self) -> CodeKind | None:
        """The kind of code that the guest executes."""
        return self._kind

    @property
    def present_view(self) -> View:
        """What is in CR3."""
        return self.mirror.kernel if self.in_kernel_view else self.mirror.user

    def is_watched(self, hpa: int) -> bool:
        """Whether stores to this byte are to be heard of."""
        gpa = self._memory.to_guest(hpa)
        return gpa is None or bool(self.monitor.users(GPA(gpa & ~PAGE_MASK)))

    @property
    def root(self) -> HPA:
        """What is to be in CR3."""
        return (self.mirror.kernel if self.in_kernel_view else self.mirror.user).root

    # -- before the guest goes on ------------------------------------------------------------

    def prepare(self) -> None:
        """Bring mirror, descriptors and view to what the guest's processor now says; the guest is about to go on."""
        self.follow_stores()
        if self._paging_changed:
            self._paging_changed = False
            self._load_root()
        if self._descriptors_changed:
            self._descriptors_changed = False
            self.descriptors.reload()
        self._update_stores()
        kernel = self._cpu.in_kernel
        by_paragraphs = self._cpu.by_paragraphs
        kind = CodeKind(self._cpu.decoder_mode, by_paragraphs, guards_loads=kernel and not by_paragraphs)
        if (kind is not self._kind and kind != self._kind) or kernel != self.in_kernel_view:
            self._kind = kind
            if not self.code.knows(kind, kernel=kernel):
                for mirror in self.tables.mirrors:
                    mirror.forget_fetches(kernel=kernel)
                self._processor.engine.flush_tlb()
        if kernel != self.in_kernel_view:
            self.in_kernel_view = kernel
            self.load_view()
        if not self._outline.begun:
            self._show_outline(0)

    def _show_outline(self, changes: int) -> None:
        region = self.region
        self._outline.show(self._processor.now, self.mirror.space, region.base, region.pages, changes)

    def load_view(self) -> None:
        """Bring CR3 and GDTR to the present view."""
        self._processor.write_setting(Setting.GDTR, self.region.gdtr(kernel=self.in_kernel_view))
        self._processor.write_setting(Setting.CR3, self.root)

    def tables_of(self, *, kernel: bool) -> tuple[HPA, GVA]:
        """What is in CR3 and in GDTR, the base, in a view."""
        view = self.mirror.kernel if kernel else self.mirror.user
        return view.root, GVA(self.region.gdtr(kernel=kernel).base)

    def note_view(self, kind: CodeKind, kernel: bool) -> None:
        """Somebody else has put a view in place, with code of a kind that is known there."""
        self._kind, self.in_kernel_view = kind, kernel

    def is_trap(self, address: int) -> bool:
        """Whether the guest is to stop before the instruction at this linear address."""
        assert self._kind is not None
        return self.code.is_trap(address, self._cpu.peek_some, self._kind, kernel=self.in_kernel_view)

    # -- the region and the mirror -----------------------------------------------------------

    def hole(self) -> GVA:
        """Where the region would go now. Raises NoRoom, which is a RegionIsFixed under a policy that fixes it."""
        try:
            return find_hole(self.mirror.space, self.region.pages, self.policy, self.history)
        except RegionFixed as fixed:
            raise RegionIsFixed(self._where(), fixed.gva, fixed.pages_sought, fixed.pages_found) from None
        except NoHole as full:
            raise NoRoom(self._where(), full.pages_sought, full.pages_found) from None

    def _map_region(self) -> None:
        self.mirror.set_region(self.region.base, self.region.frames, 1, writable_code=self.region.layout.is_one_page)

    def _load_root(self) -> None:
        """The guest wrote a control register that paging depends on: its root's mirror comes in."""
        mode = self.mode()
        if mode != self.mirror.mode:
            self.mirror.clear_region(self.region.base, self.region.pages)
            self.mirror = self.tables.mirror_for(mode)
            self._tell_mirror()
            conflict = self._conflict_with_all(self.mirror)
            if conflict is None:
                self._map_region()
            else:
                self._relocate(conflict, "a page table that the guest loaded")
            self._show_outline(1)
        self.load_view()
        self._processor.engine.flush_tlb()

    def switch_root(self, cr3: int) -> bool:
        """The guest loads CR3 in the midst of a run, and its root's mirror comes in; it is for the caller to load the
        view. False, with nothing done that shows, if the region would have to move, or memory is short."""
        mode = self.mode(cr3)
        if mode != self.mirror.mode:
            try:
                mirror = self.tables.mirror_for(mode)
            except PoolExhausted:
                return False
            if self._conflict_with_all(mirror) is not None:
                return False
            self.mirror.clear_region(self.region.base, self.region.pages)
            self.mirror = mirror
            self._tell_mirror()
            self._map_region()
            self._show_outline(1)
        self._cpu.write_setting(Setting.CR3, cr3)
        self._paging_changed = False
        self._update_stores()
        return True

    def _conflict_with_all(self, mirror: Mirror) -> GVA | None:
        return first_conflict(mirror, self.region.base, self.region.size, self.region.base, self.region.size)

    def _tell_mirror(self) -> None:
        """Machine code deals with hidden faults by what is said of the mirror that is loaded."""
        if self._hidden is not None:
            self._hidden.set_present(self.mirror.version)

    def _forget_last_tables(self) -> None:
        """Somebody is to hear of A and D bits set in more pages."""
        for mirror in self.tables.mirrors:
            mirror.forget_last_tables()

    def say_hidden(self, linear: int) -> None:
        """Have machine code deal with hidden faults as the one at this linear address was, where it can."""
        hidden = self._hidden
        if hidden is None or hidden.knows(linear >> HIDDEN_SLOT_SHIFT, self.mirror.version.number):
            return
        found = self.mirror.hidden_slot(linear, self._ram_address)
        if found is not None and not self.writes.of_page and GPA(found[0] & ~PAGE_MASK) not in self.code.pages:
            hidden.say(found[1])

    def show(self, page: GVA) -> None:
        """The guest may access a page that its mirror hides from it. If the region is there - nothing was, until a
        device's window was opened by this access - it goes elsewhere (step 46)."""
        if self.region.contains(page):
            self._relocate(page, "an access to a device")
        self.mirror.sync_page(page)

    def invalidate(self, linear: int) -> None:
        """The guest executed INVLPG."""
        self.mirror.sync_page(linear & ~PAGE_MASK)
        self._processor.engine.flush_tlb()

    def move_region(self, new: GVA) -> None:
        """Map the region elsewhere, and rebase everything that points into it. The frames stay.

        While the host has the processor, its settings are left alone: the new ones are loaded with the guest's.
        """
        processor, region = self._processor, self.region
        old = region.base
        inside = self._is_present and region.contains(processor.eip) and processor.cpl == 0
        self.mirror.clear_region(old, region.pages)
        region.rebase(new)
        self._map_region()
        if self._is_present:
            processor.write_setting(Setting.IDTR, region.idtr)
            processor.write_setting(Setting.TR, region.tr)
            self.load_view()
        if inside:
            processor.eip += new - old
            processor.esp += new - old
        processor.engine.flush_tlb()
        self._bus.emit(events.Relocated(processor.now, old, new, region.pages))

    def _relocate(self, conflict: GVA, cause: str) -> None:
        self._show_outline(1)
        self._bus.emit(events.Conflict(self._processor.now, conflict, self.region.base, cause))
        old = self.region.base
        try:
            new = self.hole()
        except NoRoom:
            if not self.may_shrink or self.region.layout.is_one_page:
                raise
            new = self._shrink()
        self.history.append(Move(old, new, conflict))
        self.move_region(new)

    def _shrink(self) -> GVA:
        """Another region takes the place of this one, of a single page; returns where it goes. Raises NoRoom.

        The save area stays in its frame, where nobody has it mapped any more.
        """
        full = self.region
        self.mirror.clear_region(full.base, full.pages)
        self.region = Region(self._ram, [self.pool.allocate()], SMALL)
        self.region.base = full.base
        self.descriptors.region = self.region
        self.descriptors.reload(anew=True)
        return self.hole()

    # -- stores ------------------------------------------------------------------------------

    def _is_urgent(self, gpa: GPA, size: int) -> bool:
        """Whether what a store changes can matter before the basic block ends: a descriptor, or the block itself.

        No processor notices a change of a page table before a serializing instruction unless the entry wasn't present
        or accessed; then the next access through it faults here, and is looked at after the store.
        """
        if self._is_in_block(gpa, size):
            return True
        return self.descriptors.is_hit(gpa, size) and not self._can_wait(gpa, size)

    def _can_wait(self, gpa: GPA, size: int) -> bool:
        """Whether a store changes nothing but descriptors, in a kernel whose loads of segments are all exits.

        A kernel that switches tasks changes its TSS's descriptor byte by byte: each would end the run.
        """
        return (
            self._kind is not None
            and self._kind.guards_loads
            and self.descriptors.is_hit(gpa, size)
            and self._has_only_descriptors(gpa)
        )

    def is_descriptor(self, gpa: int) -> bool:
        """Whether a byte is one of the guest's descriptors, in a page that is nothing else to its hypervisor."""
        return self.descriptors.is_hit(gpa, 1) and self._has_only_descriptors(GPA(gpa))

    def _is_nothing(self, gpa: GPA, size: int) -> bool:
        """Whether a store to a watched page is to what lies beside the guest's descriptors."""
        return self._has_only_descriptors(gpa) and not self.descriptors.is_hit(gpa, size)

    def _has_only_descriptors(self, gpa: GPA) -> bool:
        page = GPA(gpa & ~PAGE_MASK)
        return self.monitor.users(page) == self.descriptors.pieces_in(page)

    def _is_in_block(self, gpa: GPA, size: int) -> bool:
        """Whether some of the bytes are code of the basic block that is being executed."""
        first, end = self._processor.engine.last_block
        for page in {first & ~PAGE_MASK, end - 1 & ~PAGE_MASK}:
            entry = self.present_view.get(page)
            if entry & P and self._memory.to_guest(HPA(entry & ADDRESS)) == gpa & ~PAGE_MASK:
                linear = page | gpa & PAGE_MASK
                if linear < end and linear + size > first:
                    return True
        return False

    def follow_stores(self) -> None:
        """Steps 40 to 46 for every store to a watched page since the last time."""
        records = self.monitor.drain()
        if self.marked_code:
            self._follow_code_stores(self.marked_code)
            self.marked_code = []
        self.writes.tell(records)
        if not records:
            if self.monitor.touched:
                self._update_stores()
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
            if self.tables.is_table(store.gpa):
                self._follow_table_store(store)
                tables_changed = True
            if self.descriptors.is_hit(store.gpa, store.size):
                self._descriptors_changed = True
        if deferred:
            self._follow_deferred_stores(deferred)
        if at_once:
            self._follow_code_stores(at_once)
        if tables_changed:
            self._show_outline(len(at_once))
            self._processor.engine.flush_tlb()
        if self._descriptors_changed and not self._paging_changed:
            self._descriptors_changed = False
            self.descriptors.reload()
        self._update_stores()

    def _update_stores(self) -> None:
        """What can be done with stores in the next run: to be called before it, and after each change."""
        self.deferral.update(self.mirror)
        self.quick_stores.update(self.mirror)

    def follow_deferred(self) -> None:
        """Follow what waits, if all of it is deferred: that moves nothing, and changes no descriptor and no code."""
        if self.monitor.has_only_deferred and not self.marked_code:
            self._follow_deferred_stores(self.monitor.drain())
            self.deferral.update(self.mirror)

    def follow_waiting(self) -> None:
        """Follow, in the midst of a run, what waits for a segment to be loaded, if nothing of it presses.

        Whether such a load goes on in its block must not depend on who has drained the records before.
        """
        if self.monitor.records and not self.has_pressing_stores:
            self.follow_descriptors()

    def follow_descriptors(self) -> None:
        """... where all that was stored to is descriptors, or has been deferred."""
        records = self.monitor.drain()
        self._follow_deferred_stores([store for store in records if store.deferred])
        if any(self.descriptors.is_hit(store.gpa, store.size) for store in records if not store.deferred):
            self.descriptors.reload()
        self.deferral.update(self.mirror)

    def _follow_deferred_stores(self, stores: Sequence[TableStore]) -> None:
        """Steps 40 and 44 for stores that nothing can have noticed so far, and that are nowhere near the region."""
        for change in joined(self.tables.changes_of(stores)):
            change.mirror.sync_range(change.linear, change.size)
        bus, now = self._bus, self._processor.now
        if not bus.wants(events.PageTableWrite) and not bus.wants(events.NoConflict):
            return
        for store in stores:
            bus.emit(events.PageTableWrite(now, store.gpa, store.size, store.value or 0))
            bus.emit(events.NoConflict(now, store.gpa))
        self._show_outline(len(stores))

    def _follow_table_store(self, store: TableStore) -> None:
        now, region = self._processor.now, self.region
        if self._bus.wants(events.PageTableWrite):
            value = int.from_bytes(self._memory.read(store.gpa, store.size) or b"", "little")
            self._bus.emit(events.PageTableWrite(now, store.gpa, store.size, value))
        conflict = None
        for change in self.tables.changes(store):
            if change.mirror is self.mirror and conflict is None:
                conflict = first_conflict(self.mirror, region.base, region.size, change.linear, change.size)
            change.mirror.sync_range(change.linear, change.size)
        if conflict is None:
            if self._bus.wants(events.NoConflict):
                self._bus.emit(events.NoConflict(now, store.gpa))
        else:
            self._relocate(conflict, f"a store to the page table at GPA {store.gpa:#010x}")

    def _follow_code_stores(self, records: Sequence[TableStore]) -> None:
        """Code that was changed: forget its translation, and find what is sensitive in it now."""
        ranges: dict[GPA, tuple[int, int]] = {}
        for store in records:
            page, offset = GPA(store.gpa & ~PAGE_MASK), store.gpa & PAGE_MASK
            first, end = ranges.get(page, (PAGE_SIZE, 0))
            ranges[page] = min(first, offset), max(end, offset + store.size)
        for page, (first, end) in ranges.items():
            places = self.code.places(page)
            if places and not any(self._executes(linear, page) for linear, _ in places):
                self._drop_code(page, places)
                continue
            for linear, kernel in places:
                content = self._memory.read(page, PAGE_SIZE) or b""
                self.code.look_again(linear, content, first, end, kernel=kernel)
                if self._executes(linear, page):
                    self._processor.engine.forget_code(linear + first, end - first)
                else:
                    self._processor.engine.flush_code_wanted = True

    def _follow_code_store(self, gpa: GPA, size: int) -> bool:
        """A store in the midst of a run to a page of code, but not to the block that is executed: if no trap changes
        for it, as where programs have their data beside their code, all that is to do is forget translations."""
        page, engine = GPA(gpa & ~PAGE_MASK), self._processor.engine
        if not engine.forgets_in_run or page not in self.code.pages or self.monitor.users(page) != 1:
            return False
        if not any(self._executes(linear, page) for linear, _ in self.code.pages[page]):
            return False
        frame, content = self._memory.to_host(page), self._memory.read(page, PAGE_SIZE)
        offset = gpa & PAGE_MASK
        if frame is None or content is None or self._is_in_block(gpa, size):
            return False
        if not self.code.take(page, content, offset, offset + size):
            return False
        engine.forget_code_in(frame + offset, size)
        return True

    def _drop_code(self, page: GPA, places: Sequence[Place]) -> None:
        """Code of another address space is stored to: as a rule a page that its kernel gives to somebody else.

        To follow each of the stores would take a millisecond and all translations, a thousand times for one page.
        """
        for linear, kernel in places:
            for mirror in self.tables.mirrors:
                mirror.close_page(linear, page, kernel=kernel)
        self.code.drop(page)
        self.monitor.unwatch(page)

    def _on_bits(self, gpa: GPA) -> None:
        page = GPA(gpa & ~PAGE_MASK)
        if page in self.writes.of_page:
            self.writes.mark(gpa)
        if page in self.code.pages:  # a table that is executed, too
            self.marked_code.append(TableStore(gpa, 1))

    def _executes(self, linear: GVA, gpa: GPA) -> bool:
        """Whether the address space that is loaded now has this page there, open to fetches.

        To forget the translation of another leaves the traces of a page fault in the engine.
        """
        view = self.mirror.kernel if self.in_kernel_view else self.mirror.user
        entry = view.get(linear)
        return bool(entry & P) and not entry & NX and self._memory.to_host(gpa) == entry & ADDRESS

    def show_code(self, linear: int, *, user: bool) -> bool:
        """Open a page to fetches that the guest's tables allow, in the midst of a run: False, and nothing done, unless
        it holds what was executed there before, traps and all. Each address space comes to know each page of code."""
        page = GVA(linear & ~PAGE_MASK)
        if self.region.contains(page):
            return False
        try:
            at = self._cpu.translate(linear, Access.FETCH, user=user)
        except (Raised, UnmappedAccess):
            return False
        gpa = GPA(at & ~PAGE_MASK)
        content = self._memory.read(gpa, PAGE_SIZE)
        if content is None or not self.code.is_known(page, gpa, content, kernel=self.in_kernel_view):
            return False
        self.look_at_code(page)
        self.mirror.sync_page(page)
        return True

    def look_at_code(self, linear: GVA) -> None:
        """Find the sensitive instructions of a page of memory that is being executed."""
        page = self.mirror.guest_page(linear)
        content = None if page is None else self._memory.read(page.gpa & ~PAGE_MASK, PAGE_SIZE)
        if page is None or content is None:
            return
        gpa = GPA(page.gpa & ~PAGE_MASK)
        if self._code_at.setdefault(linear, gpa) != gpa:
            self._code_at[linear] = None
            for mirror in self.tables.mirrors:
                # Other code at the same place in another address space must be looked at anew there.
                if mirror.forbid_fetches(linear, except_from=gpa):
                    mirror.sync_page(linear)
        kernel = self._cpu.in_kernel
        if self.code.look_at(linear, gpa, content, kernel=kernel):
            self.monitor.watch(gpa)
            self._forget_last_tables()
        self.mirror.allow_fetches(linear, gpa, kernel=kernel)
