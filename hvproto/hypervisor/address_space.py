"""What a mirrored guest runs in: the mirror of its present root, and the region in it, which moves (step 46).

What the guest stores is followed by `followed_stores`; the traps in its code are `executed_code`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto import events
from hvproto.addresses import GPA, GVA, HPA, PAGE_MASK, PAGE_SIZE
from hvproto.errors import NoRoom, RegionIsFixed, Where
from hvproto.events import EventBus
from hvproto.hypervisor.deferral import Deferral
from hvproto.hypervisor.descriptors import ShadowDescriptors
from hvproto.hypervisor.executed_code import ExecutedCode
from hvproto.hypervisor.followed_stores import FollowedStores
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.layout import FULL, SMALL
from hvproto.hypervisor.mirror import ADDRESS, MIRRORED, Mirror
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.outline import Outline
from hvproto.hypervisor.pool import Pool, PoolExhausted
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
from hvproto.hypervisor.tables import GuestTables
from hvproto.hypervisor.view import View
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.hypervisor.write_watch import WriteWatches
from hvproto.processor.hidden_faults import SLOT_SHIFT as HIDDEN_SLOT_SHIFT
from hvproto.processor.paging import P, PagingMode, W
from hvproto.processor.processor import Processor
from hvproto.processor.settings import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, Setting

_SHOWN = P | MIRRORED


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
        self.ram = ram
        self.pool = Pool(ram, frames)
        self.region = Region(ram, [self.pool.allocate() for _ in range(FULL.pages)])
        self.monitor = Monitor(processor, memory)
        self.writes = WriteWatches(self.monitor, memory)
        self.writes.on_watch = self.forget_last_tables
        self.monitor.one_by_one = lambda: bus.wants(events.PageTableWrite) or bus.wants(events.NoConflict)
        self.tables = GuestTables(ram, self.pool, memory, self.monitor)
        self.tables.may_lag = lambda: not self.monitor.one_by_one()
        self.monitor.is_idle = self.tables.is_idle
        self.descriptors = ShadowDescriptors(cpu, self.region, self.monitor)
        self.deferral = Deferral(processor.engine.deferred, memory, self.monitor, self.tables, self.descriptors)
        self.decoder = Decoder()
        self.executed = ExecutedCode(self, processor, memory, cpu, self.decoder)
        self.stores = FollowedStores(self, processor, memory, bus)
        self.in_kernel_view = True
        self._is_present = False
        """Whether the guest has the processor."""
        self._kind: CodeKind | None = None
        self.paging_changed = self.descriptors_changed = False
        self._preferred: GVA | None = None
        self.mirror: Mirror
        self._outline = Outline(bus)
        self._hidden, self._ram_address = processor.engine.hidden_faults, processor.engine.ram_address

    def start(self) -> None:
        """The guest's kernel is in memory: find a place for the region, and mirror what there is."""
        self.monitor.drain()
        self._memory.on_bits = self.executed.on_bits
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
            self.region = self.descriptors.region = Region(self.ram, [self.pool.allocate()], SMALL)

    def enter(self) -> None:
        """The guest gets the processor."""
        self._is_present = True
        self._tell_mirror()
        self.monitor.attach()
        self.deferral.enter()
        self.stores.quick.enter()

    def leave(self) -> None:
        """... and somebody else gets it."""
        self.stores.quick.leave()
        self.monitor.pull()
        self._processor.engine.deferred.unmute()  # what is muted is noted, and pages may be others' by the next drain
        self._is_present = False
        if self._hidden is not None:
            self._hidden.set_present(None)

    def close(self) -> None:
        """Leave nothing behind in the processor: no traps, no watched pages. The frames are the owner's again."""
        self.executed.watch.close()
        self.monitor.close()
        self.deferral.close()

    def _on_setting(self, setting: Setting) -> None:
        if setting in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER):
            self.paging_changed = True
        if setting in (Setting.GDTR, Setting.CR0):
            self.descriptors_changed = True

    def _at_hand(self, linear: int, write: bool, user: bool) -> GPA | None:
        """What the mirror shows, it shows since the guest's tables allow it, with A and D set."""
        if self.paging_changed or self.monitor.pending:
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
        if at + size > len(self.ram) or (write and self.is_watched(at)):
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
        self.stores.follow()
        if self.paging_changed:
            self.paging_changed = False
            self._load_root()
        if self.descriptors_changed:
            self.descriptors_changed = False
            self.descriptors.reload()
        self.stores.update()
        kernel = self._cpu.in_kernel
        by_paragraphs = self._cpu.by_paragraphs
        kind = CodeKind(self._cpu.decoder_mode, by_paragraphs, guards_loads=kernel and not by_paragraphs)
        if (kind is not self._kind and kind != self._kind) or kernel != self.in_kernel_view:
            self._kind = kind
            if not self.executed.watch.knows(kind, kernel=kernel):
                for mirror in self.tables.mirrors:
                    mirror.forget_fetches(kernel=kernel)
                self._processor.engine.flush_tlb()
        if kernel != self.in_kernel_view:
            self.in_kernel_view = kernel
            self.load_view()
        if not self._outline.begun:
            self.show_outline(0)

    def show_outline(self, changes: int) -> None:
        """Tell what is mapped, after so many changes, to whoever wants to hear of it."""
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
                self.relocate(conflict, "a page table that the guest loaded")
            self.show_outline(1)
        self.descriptors_changed |= self.descriptors.is_elsewhere(mode, self.mirror.kernel)
        self.load_view()
        self._processor.engine.flush_tlb()

    def switch_root(self, cr3: int) -> bool:
        """The guest loads CR3 in the midst of a run, and its root's mirror comes in; it is for the caller to load the
        view. False, with nothing done that shows, if the region would have to move, the GDT is another one there, or
        memory is short."""
        mode, mirror = self.mode(cr3), self.mirror
        if mode != mirror.mode:
            try:
                mirror = self.tables.mirror_for(mode, beside=mirror)
            except PoolExhausted:
                return False
        if self.descriptors.is_elsewhere(mode, mirror.kernel) or self._conflict_with_all(mirror) is not None:
            self.tables.mirror_for(self.mirror.mode)  # it is still the one that was loaded last
            return False
        if mirror is not self.mirror:
            self.mirror.clear_region(self.region.base, self.region.pages)
            self.mirror = mirror
            self._tell_mirror()
            self._map_region()
            self.show_outline(1)
        self._cpu.write_setting(Setting.CR3, cr3)
        self.paging_changed = False
        self.stores.update()
        return True

    def _conflict_with_all(self, mirror: Mirror) -> GVA | None:
        return first_conflict(mirror, self.region.base, self.region.size, self.region.base, self.region.size)

    def _tell_mirror(self) -> None:
        """Machine code deals with hidden faults by what is said of the mirror that is loaded."""
        if self._hidden is not None:
            self._hidden.set_present(self.mirror.version)

    def forget_last_tables(self) -> None:
        """Somebody is to hear of A and D bits set in more pages."""
        for mirror in self.tables.mirrors:
            mirror.forget_last_tables()

    def say_hidden(self, linear: int) -> None:
        """Have machine code deal with hidden faults as the one at this linear address was, where it can."""
        hidden = self._hidden
        if hidden is None or hidden.knows(linear >> HIDDEN_SLOT_SHIFT, self.mirror.version.number):
            return
        found = self.mirror.hidden_slot(linear, self._ram_address)
        if (
            found is not None
            and not self.writes.of_page
            and GPA(found[0] & ~PAGE_MASK) not in self.executed.watch.pages
        ):
            hidden.say(found[1])

    def show(self, page: GVA) -> None:
        """The guest may access a page that its mirror hides from it. If the region is there - nothing was, until a
        device's window was opened by this access - it goes elsewhere (step 46)."""
        if self.region.contains(page):
            self.relocate(page, "an access to a device")
        self.mirror.sync_page(page)

    def invalidate(self, linear: int) -> None:
        """The guest executed INVLPG."""
        self.descriptors_changed |= self.descriptors.covers(linear)
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

    def relocate(self, conflict: GVA, cause: str) -> None:
        """The guest maps something where the region is: it goes elsewhere (step 46). Raises NoRoom."""
        self.show_outline(1)
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
        self.region = Region(self.ram, [self.pool.allocate()], SMALL)
        self.region.base = full.base
        self.descriptors.region = self.region
        self.descriptors.reload(anew=True)
        return self.hole()
