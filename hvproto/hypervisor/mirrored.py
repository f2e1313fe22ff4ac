"""The plan `mirrored`: the hypervisor's IDT, descriptors and page table are in the processor (claims 1-8).

The guest kernel runs at ring 3, whatever its mode, in the environment of long mode. Whatever traps enters a stub of the
region, which halts; `run` looks at the stopped processor, has `exits` handle or reflect the event, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hvproto.addresses import HPA, PAGE_MASK
from hvproto.errors import NoMemory, NoRoom, RunError, TripleFault, Unsupported, Where, World
from hvproto.events import EventBus
from hvproto.hypervisor import guest_state
from hvproto.hypervisor.address_space import AddressSpace
from hvproto.hypervisor.coupling import Replacement
from hvproto.hypervisor.emulate import Emulator
from hvproto.hypervisor.exit_policy import ExitPolicy, Routes
from hvproto.hypervisor.exit_view import Answer, Handler
from hvproto.hypervisor.exits import GENERAL_PROTECTION, Exits
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_state import GuestState
from hvproto.hypervisor.load_guard import LoadGuard
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.quick_exits import QuickExits
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.hypervisor.write_watch import Listener, WriteWatch
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.machine import Machine
from hvproto.processor.engine import SystemCall, UnmappedAccess
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.processor import Stop
from hvproto.processor.segments import NULL_SEGMENT, SegmentRegister
from hvproto.processor.settings import (
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_DE,
    CR4_FSGSBASE,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PAE,
    CR4_TSD,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    Setting,
    SettingValue,
)

_FPU_BITS_OF_CR0 = CR0_MP | CR0_EM | CR0_TS | CR0_NE
"""NE among them: without it, an FPU error is no #MF but a line of the chip set."""
_GUEST_BITS_OF_CR4 = CR4_DE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE
_ENVIRONMENT = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE


EntryHandler = Callable[["MirroredGuest"], None]


class MirroredGuest(Guest):
    """A deprivileged guest with its region, mirror and virtual processor."""

    physical_window = 1 << 39

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
        policy: RelocationPolicy = DEFAULT_POLICY,
        state: GuestState | None = None,
        options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    ) -> None:
        """``state`` is that of a guest that this one is to go on as; without, it boots its image."""
        super().__init__(number, machine, memory, sectors, bus, pristine, image, options)
        processor = machine.processor
        self.cpu = VirtualCpu(processor, memory, lambda: self.now, self.model)
        self.cpu.behind = self.pc.platform.space
        self.space = AddressSpace(processor, machine.ram.view, memory, frames, self.cpu, bus, self.where, policy)
        self.decoder = self.space.decoder
        self.save_area = self.space.region.save_area
        self.emulator = Emulator(self.cpu, self, self)
        self.exits = Exits(self)
        self.exit_policy = ExitPolicy(self)
        self.quick = QuickExits(self)
        self.guard = LoadGuard(self.cpu, self.space, processor, machine.ram.view)
        self._on_entry: tuple[EntryHandler, ...] = ()
        self._stopped = True
        self._debug_changed = False
        self.cpu.on_debug_change = self._on_debug_change
        self._first_registers: dict[int, int] = {}
        if state is None:
            self._boot(image)
        else:
            machine.images[World.GUEST] = image
            guest_state.apply(state, self)
            self._debug_changed = True
        self.space.start()

    def _boot(self, image: Image) -> None:
        cpu = self.cpu
        if image.kind == "disk":
            self.machine.images[World.GUEST] = image
            return  # the firmware starts it, at the first entry
        boot = self.load(image)
        segments = dict.fromkeys(SegmentRegister, boot.data)
        segments[SegmentRegister.CS] = boot.code
        cpu.set_segments(segments)
        cpu.write_setting(Setting.GDTR, boot.gdtr)
        cpu.eip = boot.eip
        self._first_registers = {0: boot.eax, 3: boot.ebx}

    @property
    def region(self) -> Region:
        """The hypervisor's own pages in this guest's address space."""
        return self.space.region

    @property
    def mirror(self) -> Mirror:
        """The mirror that is loaded now."""
        return self.space.mirror

    # -- who decides -------------------------------------------------------------------------

    @property
    def routes(self) -> Routes:
        """The route of each vector, to be changed at any time: ``guest.routes[14] = Provider.HOST``."""
        return self.exit_policy.routes

    def on_exit(self, handler: Handler) -> Handler:
        """Ask this handler, after those that are there, about every exit from the next one on; also a decorator."""
        self.exit_policy.handlers = (*self.exit_policy.handlers, handler)
        return handler

    def off_exit(self, handler: Handler) -> None:
        """Ask this handler no more, from the next exit on. Raises ValueError if it isn't there."""
        handlers = list(self.exit_policy.handlers)
        handlers.remove(handler)
        self.exit_policy.handlers = tuple(handlers)

    def on_entry(self, handler: EntryHandler) -> EntryHandler:
        """Call this whenever the guest is about to go on with the state that is in ``cpu``, which may be changed.

        That is behind every exit that Python has dealt with: all of them, while there is a handler of exits.
        """
        self._on_entry = (*self._on_entry, handler)
        return handler

    @property
    def has_entry_handlers(self) -> bool:
        return bool(self._on_entry)

    def off_entry(self, handler: EntryHandler) -> None:
        """Call this no more. Raises ValueError if it isn't there."""
        handlers = list(self._on_entry)
        handlers.remove(handler)
        self._on_entry = tuple(handlers)

    def on_write(self, pages: Iterable[int], listener: Listener) -> WriteWatch:
        """Call this with GPA and size of each store to the pages of these GPAs, at the end of its basic block.

        What is given back says which pages: some can be dropped or added, also by the listener. Raises BadInput where
        the guest has no memory; what the listener raises ends the run.
        """
        return self.space.writes.new(pages, listener)

    def answer_event(self, answer: Answer) -> None:
        """What is to become of the event that the guest has left for, once it goes on. Raises ValueError."""
        self.exit_policy.answer_event(answer)

    def reason_to_leave(self) -> Leave | None:
        if self.exit_policy.waiting:
            return Leave.EVENT
        return super().reason_to_leave()

    # -- settings ----------------------------------------------------------------------------

    def replacements(self) -> dict[Setting, Replacement]:
        region, space = self.space.region, self.space
        values: dict[Setting, SettingValue] = {
            Setting.IDTR: region.idtr,
            Setting.GDTR: region.gdtr(kernel=space.in_kernel_view),
            Setting.LDTR: NULL_SEGMENT,
            Setting.TR: region.tr,
            Setting.CR0: self._real_cr0(),
            Setting.CR3: space.root,
            Setting.CR4: self._real_cr4(),
            Setting.EFER: _ENVIRONMENT,
        }
        return {setting: Replacement(value, Provider.HYPERVISOR) for setting, value in values.items()}

    def _real_cr0(self) -> int:
        return CR0_PE | CR0_ET | CR0_WP | CR0_PG | self.cpu.control(Setting.CR0) & _FPU_BITS_OF_CR0

    def _real_cr4(self) -> int:
        # TSD: RDTSC is to tell the guest's own time.
        return CR4_PAE | CR4_TSD | self.cpu.control(Setting.CR4) & _GUEST_BITS_OF_CR4

    def _load_control_bits(self) -> None:
        processor = self.machine.processor
        for setting, value in ((Setting.CR0, self._real_cr0()), (Setting.CR4, self._real_cr4())):
            if processor.control(setting) != value:
                processor.write_setting(setting, value)

    # -- debug registers ---------------------------------------------------------------------

    def _on_debug_change(self) -> None:
        self._debug_changed = True

    def _load_debug_registers(self) -> None:
        """The guest's breakpoints, but for those that lie in the region: there the guest has nothing."""
        values = [self.cpu.debug_register(number) for number in (0, 1, 2, 3, 6, 7)]
        for number in range(4):
            if self.space.region.contains(values[number]):
                values[5] &= ~(3 << 2 * number)
        self.machine.processor.load_debug_registers(values)
        self.exits.breakpoints.refresh(self.cpu)
        self._debug_changed = False

    # -- what instructions need --------------------------------------------------------------

    def halt(self) -> None:
        """HLT was executed: the guest waits, or has called its firmware."""
        self.halted = self.pc.bios is None or not self.pc.bios.serve()

    def open_window(self, physical: int) -> bool:
        """Have the guest's devices answer at a GPA's page where there is no RAM; False if no address goes there."""
        page = physical & ~PAGE_MASK
        if page >= self.physical_window:
            return False
        if self.memory.to_host(page) is None:
            self.memory.add_device(page, HPA(self.physical_window + page))
        return True

    def invalidate(self, linear: int) -> None:
        """INVLPG of a GVA was executed."""
        self.space.invalidate(linear)

    # -- running -----------------------------------------------------------------------------

    def where(self) -> Where:
        """Where the guest stands, by its own instruction pointer."""
        eip = self.cpu.eip if self._stopped else self.machine.processor.eip
        return Where(World.GUEST, eip, self.image.symbols.name_at(eip))

    def enter(self) -> None:
        super().enter()
        processor = self.machine.processor
        self._hosts_traps, processor.is_trap = processor.is_trap, self.is_trap
        processor.on_system_call = self._on_system_call
        self.space.enter()
        self.quick.enter()

    def leave(self) -> None:
        processor = self.machine.processor
        self.quick.leave()
        processor.on_system_call = None
        processor.is_trap = self._hosts_traps
        self.space.leave()
        super().leave()

    def first_entry(self) -> None:
        for index in range(16):
            self.cpu.set_gpr(index, self._first_registers.get(index, 0))
        if self.image.kind == "disk":
            self.pc.start_firmware(self.cpu)

    # -- as data -----------------------------------------------------------------------------

    @property
    def kept_registers(self) -> Any:
        """The processor as this guest has left it, while the host has it."""
        return self._context

    def keep_registers(self, context: Any) -> None:
        """What `enter` is to bring in."""
        self._context = context

    def settle(self, limit: int) -> None:
        """Come to stand between two instructions, with the state in ``cpu``: in the middle of an exit, behind it."""
        while not self._stopped:
            if self.machine.processor.cpl == 0:
                self._turn(limit)
            else:
                self.space.stores.follow()
                self.cpu.capture()
                self._stopped = True
        self.space.stores.follow()
        self.cpu.settle()

    def close(self) -> None:
        """Leave nothing of this guest in the processor; its frames are whoever's it was who lent them."""
        self.space.close()

    def is_trap(self, address: int) -> bool:
        """Whether the guest is to stop before the instruction at this linear address."""
        if self.machine.processor.cpl == 0 or not self.space.executed.is_trap(address):
            return False
        kind = self.space.kind
        if kind is None or not kind.guards_loads:
            return True
        self.space.stores.follow_waiting()
        if self.space.monitor.records:
            return True
        return not self.guard.passes(address)

    def _on_system_call(self, _call: SystemCall) -> bool:
        return True

    def run(self, limit: int) -> Leave:
        while True:
            try:
                leave = self._turn(limit)
            except (UnmappedAccess, Shutdown, RunError) as problem:
                self.error = self.as_error(problem)
                if self.error is problem and not isinstance(problem, TripleFault | NoRoom | Unsupported | NoMemory):
                    raise
                leave = None
            if leave is not None:
                return leave

    def as_error(self, problem: UnmappedAccess | Shutdown | RunError) -> RunError:
        if isinstance(problem, TripleFault) and self.space.region.contains(self.machine.processor.eip):
            return TripleFault(Where(World.HYPERVISOR, problem.where.eip), problem.faults)
        return super().as_error(problem)

    def _turn(self, limit: int) -> Leave | None:
        """One run of the processor, with what has to be done before and after it."""
        machine, processor = self.machine, self.machine.processor
        self.keep_time()
        self.exit_policy.finish_event()
        reason = self.reason_to_leave()
        if reason is not None:
            return reason
        if self.host_interrupt_pending():
            return Leave.INTERRUPT
        deadline = self.deadline(limit)
        is_delivered = False
        if not self._stopped:
            if processor.cpl == 0:  # between a stub's first instruction and its HLT: all else can wait for that
                deadline = max(deadline, processor.now + 1)
            else:
                self.space.stores.follow()
                if self.status is not None:
                    return self.reason_to_leave()  # who has heard of a store has ended it
                if self._nmi_waits or self._resets:
                    self._take_over()
                elif self._can_interrupt():
                    if processor.in_interrupt_shadow:
                        self._take_over()
                    else:
                        is_delivered = True
                        self._interrupt()
        if self._stopped:
            if self._resets and self.pc.bios is not None:
                self._resets = self.halted = False
                self.pc.reset()
            if self.halted and not self._nmi_waits:
                wait = self.wait(accepts_interrupts=self.cpu.interrupts)
                if wait is not None:
                    return wait
            if self._nmi_waits and not self.cpu.nmi_blocked and not self.cpu.in_interrupt_shadow:
                self._nmi_waits = self.halted = False
                self.exits.nmi()
            if self._can_interrupt() and not is_delivered:
                self.halted = False
                self.exits.interrupt(self.board.interrupts.acknowledge())
            if self._resume():
                deadline = processor.now + 1
        else:
            self.quick.going_on()
        match self._run_on(deadline):
            case Stop.HALT:
                self._stopped = True
                frame = self.space.region.read_frame()
                self.cpu.load(frame)
                self.exits.cycles = self.space.region.cycles_to_halt(frame.vector)
                self.space.stores.follow()
                if self.exit_policy.asks(frame.vector, frame.error_code):
                    self.exits.handle(frame.vector, frame.error_code)
            case Stop.TRAP:
                self._stopped = True
                self.cpu.capture()
                self.exits.cycles = 0
                self.space.stores.follow()
                if not processor.engine.traps_port_io and self.exits.faults_by_itself():
                    processor.raise_exception(GENERAL_PROTECTION, 0)
                    self._stopped = False
                elif self.exit_policy.asks(GENERAL_PROTECTION, 0, trapped=True):
                    self.exits.trapped()
            case Stop.DEADLINE:
                pass
        machine.check_limit(limit)
        return None

    def _interrupt(self) -> None:
        """An external interrupt is due where the guest stands, with its state in the processor."""
        vector = self.board.interrupts.acknowledge()
        if not self.quick.interrupt(vector):
            self._take_over()
            self.exits.interrupt(vector)

    def _take_over(self) -> None:
        """The guest stands between two instructions: its state comes out of the processor."""
        self.cpu.capture()
        self._stopped = True

    def _run_on(self, deadline: int) -> Stop:
        """Run until there is something that `QuickExits` leaves to others."""
        quick = self.quick
        while True:
            stop = self.machine.run_processor(deadline)
            if stop is not Stop.HALT or not quick.handle():
                return stop
            if self._can_interrupt():
                return Stop.DEADLINE  # it came on the way into the stub

    def _can_interrupt(self) -> bool:
        return self.board.interrupts.pending and self.cpu.interrupts and not self.cpu.in_interrupt_shadow

    def _resume(self) -> bool:
        """The guest's state goes into the processor; True if only one instruction may be executed with it."""
        for handler in self._on_entry:
            handler(self)
        self.space.prepare()
        self._load_control_bits()
        if self._debug_changed:
            self._load_debug_registers()
        self.cpu.store()
        self.quick.resuming()
        self._stopped = False
        shadow = self.cpu.in_interrupt_shadow
        if shadow:
            self.cpu.set_shadow(False)
            self.machine.processor.set_shadow(True)
        return shadow
