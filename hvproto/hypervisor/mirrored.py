"""The plan `mirrored`: the hypervisor's IDT, descriptors and page table are in the processor (claims 1-8).

The guest kernel runs at ring 3. Whatever traps enters a stub of the region, which halts; `run` looks
at the stopped processor, has `exits` handle or reflect the event, and goes on by the stub's IRET.
"""

from __future__ import annotations

from typing import Any

from hvproto import events
from hvproto.addresses import GPA, GVA, HPA, PAGE_MASK, PAGE_SIZE
from hvproto.errors import NoMemory, NoRoom, RunError, TripleFault, Unsupported, Where, World
from hvproto.events import EventBus
from hvproto.hypervisor.code import CodeWatch, Decoder
from hvproto.hypervisor.coupling import Replacement
from hvproto.hypervisor.descriptors import ShadowDescriptors
from hvproto.hypervisor.emulate import Emulator
from hvproto.hypervisor.exits import Exits
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import ADDRESS
from hvproto.hypervisor.monitor import Monitor, TableStore
from hvproto.hypervisor.not_built import NotBuilt
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.region import CODE_PAGES, CODE_SELECTOR, DATA_SELECTOR, KICK_VECTOR, PAGES, Region
from hvproto.hypervisor.relocation import NoHole, find_hole, first_conflict
from hvproto.hypervisor.tables import GuestTables
from hvproto.hypervisor.virtual_cpu import OutOfMemory, VirtualCpu
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.paging import NX, Access, P, PagingMode
from hvproto.processor.processor import Stop
from hvproto.processor.segments import NULL_SEGMENT, SegmentRegister, flat
from hvproto.processor.settings import (
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PAE,
    CR4_PSE,
    EFER_NXE,
    Setting,
    SettingValue,
)

_FPU_BITS_OF_CR0 = CR0_MP | CR0_EM | CR0_TS
_FPU_BITS_OF_CR4 = CR4_OSFXSR | CR4_OSXMMEXCPT


class MirroredGuest(Guest):
    """A deprivileged guest with its region, mirror and virtual processor."""

    def __init__(
        self,
        number: int,
        machine: Machine,
        memory: GuestMemory,
        frames: list[HPA],
        sectors: int,
        bus: EventBus,
        pristine: Any,
        image: Image,
    ) -> None:
        super().__init__(number, machine, memory, sectors, bus, pristine)
        ram, processor = machine.ram.view, machine.processor
        self.pool = Pool(ram, frames)
        self.region = Region(ram, [self.pool.allocate() for _ in range(PAGES)])
        self.save_area = self.region.save_area
        self.cpu = VirtualCpu(processor, memory, self.region)
        self.monitor = Monitor(processor, memory)
        self.tables = GuestTables(ram, self.pool, memory, self.monitor)
        self.descriptors = ShadowDescriptors(self.cpu, self.region, self.monitor)
        self.decoder = Decoder()
        self.code = CodeWatch(processor, self.decoder)
        self.emulator = Emulator(self.cpu, self, lambda: self.now)
        self.exits = Exits(self)
        self.cpu.on_bits_set = lambda linear: self.mirror.sync_page(linear & ~PAGE_MASK)
        self.emulator.on_paging_change = self._load_root
        self.emulator.on_invalidate = self._invalidate
        self.emulator.on_descriptors_change = self.descriptors.reload
        self.emulator.on_halt = self._halt
        processor.is_trap = self._is_trap

        self._boot = self.load(image)
        self.monitor.drain()
        self.cpu.gdtr = self._boot.gdtr
        self.descriptors.reload()
        self._marked_code: list[TableStore] = []
        memory.on_bits = self._on_bits
        self._stopped = True
        self._kicked = False
        self._in_kernel_view = True
        self.mirror = self.tables.mirror_for(self._mode())
        self.region.rebase(self._hole(self.mirror.mode))
        self._map_region()

    # -- settings ----------------------------------------------------------------------------

    def replacements(self) -> dict[Setting, Replacement]:
        values: dict[Setting, SettingValue] = {
            Setting.IDTR: self.region.idtr,
            Setting.GDTR: self.region.gdtr(kernel=self._in_kernel_view),
            Setting.LDTR: NULL_SEGMENT,
            Setting.TR: self.region.tr,
            Setting.CR0: self._real_cr0(),
            Setting.CR3: self._view_root(),
            Setting.CR4: self._real_cr4(),
            Setting.EFER: EFER_NXE,
        }
        return {setting: Replacement(value, Provider.HYPERVISOR) for setting, value in values.items()}

    def _view_root(self) -> int:
        return (self.mirror.kernel if self._in_kernel_view else self.mirror.user).pdpt

    def _real_cr0(self) -> int:
        return CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG | self.cpu.cr0 & _FPU_BITS_OF_CR0

    def _real_cr4(self) -> int:
        return CR4_PAE | self.cpu.cr4 & _FPU_BITS_OF_CR4

    def _mode(self) -> PagingMode:
        """What tells one mirror from another: the bits of the control registers that a walk depends on."""
        cpu = self.cpu
        if not cpu.cr0 & CR0_PG:
            return PagingMode(0, 0, 0, 0)
        cr3 = cpu.cr3 & ~0x1F
        return PagingMode(cpu.cr0 & (CR0_PG | CR0_WP), cr3, cpu.cr4 & (CR4_PSE | CR4_PAE), cpu.efer)

    def _load_view(self) -> None:
        """Bring CR3 and GDTR to the view of the guest's present privilege level."""
        processor = self.machine.processor
        self._in_kernel_view = self.cpu.in_kernel
        processor.write_setting(Setting.GDTR, self.region.gdtr(kernel=self._in_kernel_view))
        processor.write_setting(Setting.CR3, self._view_root())

    def _load_control_bits(self) -> None:
        processor = self.machine.processor
        for setting, value in ((Setting.CR0, self._real_cr0()), (Setting.CR4, self._real_cr4())):
            if processor.control(setting) != value:
                processor.write_setting(setting, value)

    # -- the region and the mirror -----------------------------------------------------------

    def _hole(self, mode: PagingMode) -> GVA:
        try:
            return find_hole(mode, self.memory, PAGES)
        except NoHole as full:
            raise NoRoom(self.where(), full.pages_sought, full.pages_found) from None

    def _map_region(self) -> None:
        self.mirror.set_region(self.region.base, self.region.frames, CODE_PAGES)

    def _load_root(self) -> None:
        """The guest wrote a control register that paging depends on: its root's mirror comes in."""
        mode = self._mode()
        if mode != self.mirror.mode:
            self.mirror.clear_region(self.region.base, PAGES)
            self.mirror = self.tables.mirror_for(mode)
            conflict = first_conflict(self.mirror, self.region.base, self.region.size, 0, 1 << 32)
            if conflict is None:
                self._map_region()
            else:
                self._relocate(conflict, "a page table that the guest loaded")
        self._load_view()
        self._load_control_bits()
        self.descriptors.reload()
        self.machine.processor.engine.flush_tlb()

    def _invalidate(self, linear: int) -> None:
        self.mirror.sync_page(linear & ~PAGE_MASK)
        self.machine.processor.engine.flush_tlb()

    def move_region(self, new: GVA) -> None:
        """Map the region elsewhere, and rebase everything that points into it. The frames stay."""
        processor, region = self.machine.processor, self.region
        old = region.base
        inside = region.contains(processor.eip) and processor.cpl == 0
        self.mirror.clear_region(old, PAGES)
        region.rebase(new)
        self._map_region()
        processor.write_setting(Setting.IDTR, region.idtr)
        processor.write_setting(Setting.TR, region.tr)
        self._load_view()
        if inside:
            processor.eip += new - old
            processor.esp += new - old
        processor.engine.flush_tlb()
        self.bus.emit(events.Relocated(processor.now, old, new, PAGES))

    def _relocate(self, conflict: GVA, cause: str) -> None:
        now = self.machine.processor.now
        self.bus.emit(events.Conflict(now, conflict, self.region.base, cause))
        self.move_region(self._hole(self.mirror.mode))

    def follow_stores(self) -> None:
        """Steps 40 to 46 for every store to a watched page since the last time."""
        records = self.monitor.drain()
        if self._marked_code:
            self._follow_code_stores(self._marked_code)
            self._marked_code = []
        if not records:
            return
        tables_changed = False
        for store in records:
            if self.tables.is_table(store.gpa):
                self._follow_table_store(store)
                tables_changed = True
            if self.descriptors.is_hit(store.gpa, store.size):
                self.descriptors.reload()
        self._follow_code_stores(records)
        if tables_changed:
            self.machine.processor.engine.flush_tlb()

    def _follow_table_store(self, store: TableStore) -> None:
        now, region = self.machine.processor.now, self.region
        value = int.from_bytes(self.memory.read(store.gpa, store.size) or b"", "little")
        self.bus.emit(events.PageTableWrite(now, store.gpa, store.size, value))
        conflict = None
        for change in self.tables.changes(store):
            if change.mirror is self.mirror and conflict is None:
                conflict = first_conflict(self.mirror, region.base, region.size, change.linear, change.size)
            change.mirror.sync_range(change.linear, change.size)
        if conflict is None:
            self.bus.emit(events.NoConflict(now, store.gpa))
        else:
            self._relocate(conflict, f"a store to the page table at GPA {store.gpa:#010x}")

    def _follow_code_stores(self, records: list[TableStore]) -> None:
        """Code that was changed: forget its translation, and find what is sensitive in it now."""
        ranges: dict[GPA, tuple[int, int]] = {}
        for store in records:
            page, offset = GPA(store.gpa & ~PAGE_MASK), store.gpa & PAGE_MASK
            first, end = ranges.get(page, (PAGE_SIZE, 0))
            ranges[page] = min(first, offset), max(end, offset + store.size)
        for page, (first, end) in ranges.items():
            for linear, kernel in self.code.places(page):
                content = self.memory.read(page, PAGE_SIZE) or b""
                self.code.look_again(linear, content, first, end, kernel=kernel)
                if self._executes(linear, page):
                    self.machine.processor.engine.forget_code(linear + first, end - first)
                else:
                    self.machine.processor.engine.flush_code_wanted = True

    def _on_bits(self, gpa: GPA) -> None:
        if self.code.places(GPA(gpa & ~PAGE_MASK)):  # a table that is executed, too
            self._marked_code.append(TableStore(gpa, 1))

    def _executes(self, linear: GVA, gpa: GPA) -> bool:
        """Whether the address space that is loaded now has this page there, open to fetches.

        To forget the translation of another leaves the traces of a page fault in the engine.
        """
        view = self.mirror.kernel if self._in_kernel_view else self.mirror.user
        entry = view.get(linear)
        return bool(entry & P) and not entry & NX and self.memory.to_host(gpa) == entry & ADDRESS

    def look_at_code(self, linear: GVA) -> None:
        """Find the sensitive instructions of a page that is being executed at this linear address."""
        page = self.mirror.guest_page(linear)
        content = None if page is None else self.memory.read(page.gpa & ~PAGE_MASK, PAGE_SIZE)
        if page is None or content is None:
            return
        gpa = GPA(page.gpa & ~PAGE_MASK)
        for mirror in self.tables.mirrors:
            # Other code at the same place in another address space must be looked at anew there.
            if mirror.forbid_fetches(linear, except_from=gpa):
                mirror.sync_page(linear)
        if self.code.look_at(linear, gpa, content, kernel=self.cpu.in_kernel):
            self.monitor.watch(gpa)
        self.mirror.allow_fetches(linear, gpa, kernel=self.cpu.in_kernel)

    # -- running -----------------------------------------------------------------------------

    def where(self) -> Where:
        """Where the guest stands, by its own instruction pointer."""
        image = self.machine.images.get(World.GUEST)
        eip = self.cpu.eip if self._stopped else self.machine.processor.eip
        return Where(World.GUEST, eip, image.symbols.name_at(eip) if image else None)

    def first_entry(self) -> None:
        """The processor stands in a stub, about to return to the guest's first instruction."""
        processor, boot = self.machine.processor, self._boot
        processor.set_segments(
            {
                SegmentRegister.SS: flat(DATA_SELECTOR, code=False, dpl=0),
                SegmentRegister.CS: flat(CODE_SELECTOR, code=True, dpl=0),
                **{
                    register: boot.data.with_dpl(3)
                    for register in (SegmentRegister.DS, SegmentRegister.ES, SegmentRegister.FS, SegmentRegister.GS)
                },
            }
        )
        for index in range(8):
            processor.set_gpr(index, 0)
        processor.set_gpr(0, boot.eax)
        processor.set_gpr(3, boot.ebx)
        processor.eflags = 2
        processor.eip = self.region.after_halt(KICK_VECTOR)
        processor.esp = self.region.halted_esp
        cpu = self.cpu
        cpu.eip, cpu.esp, cpu.real_eflags = boot.eip, 0, 2
        cpu.code, cpu.stack = boot.code, boot.data

    def _halt(self) -> None:
        self.halted = True

    def _is_trap(self, address: int) -> bool:
        if self.machine.world is not World.GUEST or self.machine.processor.cpl == 0:
            return False
        return self.code.is_trap(address, self.cpu.peek, kernel=self.cpu.in_kernel)

    def run(self, limit: int) -> Leave:
        while True:
            try:
                leave = self._turn(limit)
            except (OutOfMemory, NotBuilt, Shutdown, RunError) as problem:
                self.error = self._as_error(problem)
                if self.error is problem and not isinstance(problem, TripleFault | NoRoom | Unsupported | NoMemory):
                    raise
                leave = None
            if leave is not None:
                return leave

    def _as_error(self, problem: OutOfMemory | NotBuilt | Shutdown | RunError) -> RunError:
        match problem:
            case OutOfMemory():
                return NoMemory(self.where(), problem.access.name.lower(), problem.gpa)
            case NotBuilt():
                return Unsupported(self.where(), f"not built yet: {problem}")
            case Shutdown():
                return TripleFault(self.where(), problem.faults)
            case TripleFault() if self.region.contains(self.machine.processor.eip):
                return TripleFault(Where(World.HYPERVISOR, problem.where.eip), problem.faults)
            case _:
                return problem

    def _turn(self, limit: int) -> Leave | None:
        """One run of the processor, with what has to be done before and after it."""
        machine, processor = self.machine, self.machine.processor
        self.clock.run_due()
        reason = self.reason_to_leave()
        if reason is not None:
            return reason
        if self.host_interrupt_pending():
            return Leave.INTERRUPT
        deadline = self.deadline(limit)
        if self._stopped:
            if self.halted:
                wait = self.wait(accepts_interrupts=self.cpu.interrupts)
                if wait is not None:
                    return wait
            if self._can_interrupt():
                self.halted = False
                self.exits.interrupt(self.board.pic.acknowledge())
            if self.cpu.shadow:
                deadline = processor.now + 1
                self.cpu.shadow = False
            self._resume()
        else:
            self.follow_stores()
            if processor.cpl == 0:  # between a stub's first instruction and its HLT or IRET
                deadline = max(deadline, processor.now + 1)
            elif self._can_interrupt():
                self._kicked = True
                processor.interrupt(KICK_VECTOR)
        match machine.run_processor(deadline):
            case Stop.HALT:
                self._stopped = True
                self.cpu.load_frame()
                self.follow_stores()
                kicked, self._kicked = self._kicked, False
                if not (kicked and self.cpu.vector == KICK_VECTOR):
                    self.exits.handle()
            case Stop.TRAP:
                processor.raise_exception(13, 0)
            case Stop.DEADLINE:
                pass
        machine.check_limit(limit)
        return None

    def _can_interrupt(self) -> bool:
        return self.board.pic.pending and self.cpu.interrupts and not self.cpu.shadow

    def _resume(self) -> None:
        """Set the frame; the view follows the guest's privilege level."""
        self.follow_stores()
        if self.cpu.in_kernel != self._in_kernel_view:
            self._load_view()
        self.cpu.store_frame()
        self._stopped = False

    def access_of(self, error_code: int) -> Access:
        """What the processor's page-fault error code says was attempted."""
        if error_code & 0x10:
            return Access.FETCH
        return Access.WRITE if error_code & 2 else Access.READ
