"""The plan `application`: the guest lives inside a process of the host, and no setting is replaced (figure 1).

Each exception of the guest goes through the host's IDT to the host's kernel, which makes a signal of it for the
emulation program; that program asks at the door what to do, has the host's kernel map what the answer says, and goes
back into the guest, at the guest's own handler if it is to have the exception. What decides is the same as in the
plan `mirrored`; what differs is the way. The guest's own devices are looked at whenever it comes out, and it comes out
with each tick of the host's timer.
"""

from __future__ import annotations

from typing import Any

from hvproto import events
from hvproto.addresses import HPA
from hvproto.errors import NoMemory, TripleFault, Unsupported, Where, World
from hvproto.events import EventBus
from hvproto.hypervisor.application_exits import ADVICE, ApplicationExits, ProcessEmulator
from hvproto.hypervisor.application_limits import what_is_missing
from hvproto.hypervisor.coupling import Replacement
from hvproto.hypervisor.guest import Guest, Leave
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.process_code import ProcessCode
from hvproto.hypervisor.process_cpu import ProcessCpu, SignalFrame
from hvproto.hypervisor.process_space import Mapping, ProcessSpace
from hvproto.hypervisor.run_block import MAPPINGS, BadRunBlock, RunBlock
from hvproto.hypervisor.sensitive import Decoder
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.machine import Machine
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_TF, Setting

DEBUG, GENERAL_PROTECTION = 1, 13
PAGE_FAULT = 14
TICK = 0x20
"""The vector of a signal that says that the host's timer has interrupted the guest."""
_PAGING = (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER)


class ApplicationGuest(Guest):
    """A guest at ring 3 in a process of the host: its virtual processor, and what the process has mapped for it."""

    save_area = HPA(0)

    def __init__(
        self,
        number: int,
        machine: Machine,
        memory: GuestMemory,
        sectors: int,
        bus: EventBus,
        pristine: Any,
        image: Image,
        options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
    ) -> None:
        super().__init__(number, machine, memory, sectors, bus, pristine, image, options)
        processor = machine.processor
        self.cpu = ProcessCpu(processor, memory, lambda: self.now, self.model)
        self.cpu.on_setting = self._on_setting
        self.space = ProcessSpace(memory, self.cpu)
        self.decoder = Decoder()
        self.code = ProcessCode(
            processor, self.decoder, lambda: (self.cpu.control(Setting.CR0), self.cpu.control(Setting.CR4))
        )
        self.emulator = ProcessEmulator(self.cpu, self, self)
        self.exits = ApplicationExits(self)
        self.fault_address = 0
        """CR2 of the signal that is being handled."""
        self._root: int | None = None
        self._inside = False
        self._trapped = False
        self._raised = False
        self._paging_changed = False
        self._one_step = False
        self._shadow_at: int | None = None
        """The instruction at this EIP was shielded from interrupts when the guest was entered."""
        self._calls: list[Mapping] = []
        self._made: list[Mapping] = []
        self._code_pages: set[int] = set()
        memory.on_write = self._on_write
        memory.on_bits = self._on_bits
        self._boot(image)

    def _boot(self, image: Image) -> None:
        if image.kind == "disk":
            self.machine.images[World.GUEST] = image
            raise Unsupported(
                self.where(), "plan application can't run what boots from a disk: a process has no real mode", ADVICE
            )
        boot, cpu = self.load(image), self.cpu
        segments = dict.fromkeys(SegmentRegister, boot.data)
        segments[SegmentRegister.CS] = boot.code
        cpu.set_segments(segments)
        cpu.write_setting(Setting.GDTR, boot.gdtr)
        cpu.eip = boot.eip
        cpu.set_gpr(0, boot.eax)
        cpu.set_gpr(3, boot.ebx)

    # -- what `Guest` asks -------------------------------------------------------------------

    def where(self) -> Where:
        eip = self.machine.processor.eip if self.has_processor() else self.cpu.eip
        return Where(World.GUEST, eip, self.image.symbols.name_at(eip))

    def replacements(self) -> dict[Setting, Replacement]:
        """None: that is the point."""
        return {}

    def first_entry(self) -> None:
        """Nothing: the guest is entered by the emulation program."""

    def halt(self) -> None:
        """HLT was executed."""
        self.halted = True

    def invalidate(self, linear: int) -> None:
        """INVLPG of a GVA was executed."""
        self.space.invalidate(linear)

    def _on_setting(self, setting: Setting) -> None:
        self._paging_changed |= setting in _PAGING

    def _on_write(self, gpa: int, size: int) -> None:
        """The hypervisor itself has written to the guest's memory, for the guest."""
        self.space.forget_entries(gpa, size)
        self._forget_code(gpa, size)

    def _on_bits(self, gpa: int) -> None:
        self.space.note_bits(gpa)
        self._forget_code(gpa, 1)

    def _forget_code(self, gpa: int, size: int) -> None:
        """The engine doesn't see stores that aren't its own."""
        if gpa >> 12 in self._code_pages or (gpa + size - 1) >> 12 in self._code_pages:
            self.machine.processor.engine.flush_code()

    # -- while the guest runs ----------------------------------------------------------------

    def has_processor(self) -> bool:
        """Whether the processor executes the guest's code now, rather than its process's own or somebody else's."""
        processor = self.machine.processor
        return (
            self._inside
            and processor.cpl == 3
            and processor.control(Setting.CR3) == self._root
            and processor.code_address in self.space
        )

    def on_new_block(self, address: int, size: int) -> bool:
        """A basic block has been translated; True if it must be once more."""
        if not self.has_processor():
            return False
        for linear in (address, address + max(size, 1) - 1):
            gpa = self.space.gpa(linear)
            if gpa is not None:
                self._code_pages.add(gpa >> 12)
        return self.code.look(address, size)

    def is_trap(self, address: int) -> bool:
        """Whether the guest is to stop before the instruction at this linear address."""
        self._trapped = self.has_processor() and self.code.is_trap(address)
        return self._trapped

    def raise_trap(self) -> None:
        """If the guest stands before such an instruction: raise #GP, which takes its way through the host."""
        if self._trapped:
            self._trapped = False
            self._raised = True
            self.machine.processor.raise_exception(GENERAL_PROTECTION, 0)

    # -- at the door -------------------------------------------------------------------------

    def knocked(self, block: RunBlock, limit: int) -> Leave:
        """The emulation program asks what to do; for INSIDE, what to do is in the run block then."""
        self._root = self.machine.processor.control(Setting.CR3)
        self.machine.images[World.GUEST] = self.image
        if not self.started:
            self.started = True
            return Leave.MOVE_IN
        if self._frozen_at is not None:
            self.thaw()
        was_inside, self._inside = self._inside, False
        if was_inside:
            self.bus.emit(events.GuestLeft(self.machine.processor.now, self.number))
        signal = block.take_signal()
        if signal is None and was_inside:
            self._check_made(block)
        self._block = block
        self._signal = signal
        leave = self.run(limit)
        if leave is Leave.INSIDE:
            self._inside = True
            self.bus.emit(events.GuestEntered(self.machine.processor.now, self.number))
        else:
            self.freeze()
        return leave

    def run(self, limit: int) -> Leave:
        while True:
            try:
                signal, self._signal = self._signal, None
                if signal is not None:
                    self._handle(signal)
                leave = self._what_next()
                if leave is not None:
                    return leave
                self._go_inside()
                return Leave.INSIDE
            except (UnmappedAccess, Shutdown, TripleFault, NoMemory, Unsupported) as problem:
                self.error = self.as_error(problem)

    def _handle(self, signal: SignalFrame) -> None:
        cpu, vector = self.cpu, signal.vector
        cpu.take(signal)
        self.fault_address = signal.cr2
        raised, self._raised = self._raised, False
        stepped, self._one_step = self._one_step, False
        shadow_at, self._shadow_at = self._shadow_at, None
        if vector == TICK:
            self._one_step = stepped
            self._keep_shadow(shadow_at)
            return
        if vector != PAGE_FAULT:
            self._close_tables()
        if vector == DEBUG and stepped and not cpu.eflags & EFLAGS_TF:
            return
        if vector == GENERAL_PROTECTION and raised and not self.exits.faults_by_itself():
            self.exits.trapped()
        else:
            self.exits.handle(vector, signal.error_code)
            if vector == PAGE_FAULT:
                self._keep_shadow(shadow_at)

    def _keep_shadow(self, shadow_at: int | None) -> None:
        """The instruction that STI or a load of SS has shielded is still to be executed: what came was none of its."""
        if shadow_at == self.cpu.eip:
            self.cpu.set_shadow(True)

    def _close_tables(self) -> None:
        now = self.machine.processor.now
        for store in self.space.close_tables() if self.space.tables_are_open else ():
            self.bus.emit(events.PageTableWrite(now, store.gpa, store.size, store.value))

    def _what_next(self) -> Leave | None:
        """Why the guest can't go on now; None if it can. An interrupt of its own devices is delivered."""
        self.keep_time()
        reason = self.reason_to_leave()
        if reason is not None:
            return reason
        shadow = self.cpu.in_interrupt_shadow
        if self._nmi_waits and not self.cpu.nmi_blocked and not shadow:
            self._nmi_waits = self.halted = False
            self._close_tables()
            self.exits.nmi()
        if self.halted:
            reason = self.wait(accepts_interrupts=self.cpu.interrupts)
            if reason is not None:
                return reason
        if self.board.interrupts.pending and self.cpu.interrupts and not shadow:
            self.halted = False
            self._close_tables()
            self.exits.interrupt(self.board.interrupts.acknowledge())
        return None

    def _go_inside(self) -> None:
        """Into the run block: the guest's registers, and the mappings that the emulation program is to make first."""
        cpu = self.cpu
        missing = what_is_missing(cpu)
        if missing is not None:
            raise Unsupported(self.where(), f"under plan application {missing}", ADVICE)
        if self._paging_changed:
            self._paging_changed = False
            self.space.revalidate()
        if not cpu.in_kernel:
            self.space.leave_kernel()
        self._calls += self.space.mappings()
        self._made, self._calls = self._calls[:MAPPINGS], self._calls[MAPPINGS:]
        if not self._calls:  # else it comes back for the rest first
            # One step: a store to a page table is looked at when it is done, an interrupt waits for a shadow to end.
            shadow = cpu.in_interrupt_shadow
            self._shadow_at = cpu.eip if shadow else None
            cpu.set_shadow(False)
            self._one_step = self.space.tables_are_open or (shadow and self.board.interrupts.pending)
        calls = [(call.address, call.offset, call.size) for call in self._made]
        self._block.go_inside(cpu.give(one_step=self._one_step), calls, more=bool(self._calls))

    def _check_made(self, block: RunBlock) -> None:
        """The emulation program comes back without a signal: for more mappings, or because one was refused."""
        if block.result == 0:
            return
        number = len(self._made) - block.mappings_left
        if not 0 <= number < len(self._made):
            raise BadRunBlock(
                self.where(), "the emulation program says that it was refused what nobody has asked it for"
            )
        refused = self._made[number]
        self.error = Unsupported(
            self.where(),
            f"the guest maps {refused.size:#x} bytes at {refused.address:#010x}; under plan application that has to be "
            "done by the host, which keeps these addresses for its own kernel",
            ADVICE,
        )
