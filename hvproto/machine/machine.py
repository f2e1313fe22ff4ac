"""The machine: processor, RAM and board, and the loop that makes a PC of them.

The processor runs in slices that end where something else is due: a timer event, an interrupt that
can be taken, a stop that somebody asked for. Everything that is decided is decided between slices.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from unicorn import UcError

from hvproto.addresses import GPA
from hvproto.errors import EngineError, LimitReached, MachineError, NoMemory, RunError, TripleFault, Where, World
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.allowance import Allowance
from hvproto.machine.ata import DATA_PORT
from hvproto.machine.bios.bios import Bios
from hvproto.machine.board import Board
from hvproto.machine.boot import load_kernel
from hvproto.machine.clock import CYCLES_PER_PIT_TICK, CYCLES_PER_SECOND, Clock
from hvproto.machine.complaints import Complaints
from hvproto.machine.console_input import ByteSink, ByteSource, ConsoleInput
from hvproto.machine.ctrl_c import deferred_ctrl_c
from hvproto.machine.disk_backend import ImageBackend, SectorBackend
from hvproto.machine.disk_image import bundled_disk
from hvproto.machine.model_registers import ModelRegisters
from hvproto.machine.platform import Platform, put_tables
from hvproto.machine.ram import MIB, Ram
from hvproto.machine.screen import Screen
from hvproto.machine.string_input import take_many
from hvproto.machine.string_output import give_many
from hvproto.machine.unclaimed import Unclaimed, list_unclaimed
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_IF, Setting

DEFAULT_RAM = 64 * MIB
NEVER = (1 << 63) - 1
ISA_ACCESS_CYCLES = CYCLES_PER_PIT_TICK
"""What IN and OUT take besides their bytes: eight clocks of ISA's 8.33 MHz bus are a microsecond, here 0.84.

A loop that waits for the timer, the clock chip or the disk at a port then ends after so many turns as on a PC, and not
after some hundred times as many. The disk's data port is faster (120 ns in PIO mode 4) and costs nothing."""
LOOK_INTERVAL = CYCLES_PER_SECOND // 1000
"""How often `Machine.run_until` looks at the screen, in cycles: a millisecond of virtual time."""
IDLE_EVENTS = 32
"""After how many events without an interrupt a halted processor is taken to sleep for ever: a masked timer's, say."""


class Machine:
    """A PC with one processor.

    ``world`` names whose code runs on it, for errors; a hypervisor sets it as it couples and
    decouples. ``on_serial`` and ``on_debug`` get each byte that leaves COM1 or port 0xe9.
    """

    def __init__(
        self,
        ram_size: int = DEFAULT_RAM,
        disk: bytes | SectorBackend | None = None,
        *,
        second_disk: bytes | SectorBackend | None = None,
        world: World = World.GUEST,
        engine: str | None = None,
        on_serial: Callable[[int], None] | None = None,
        on_debug: Callable[[int], None] | None = None,
    ) -> None:
        self.ram = Ram(ram_size)
        self.told_memory = ram_size
        """Bytes of RAM that the kernel was told of when it was loaded."""
        self.processor = Processor(self.ram.view, engine)
        self.world = world
        self.whose: Callable[[], World] = lambda: me.world
        """Whose code the processor is at, for `where`: normally what `world` says."""
        self.images: dict[World, Image] = {}
        self.serial_output = bytearray()
        self.debug_output = bytearray()
        self.exit_value: int | None = None
        self._listeners = {id(self.serial_output): on_serial, id(self.debug_output): on_debug}
        # The parts call the machine without holding it: it goes, with its RAM, as soon as nobody has it any more.
        me = weakref.proxy(self)
        self.clock = Clock(lambda: me.processor.now)
        backend = _backend(bundled_disk() if disk is None else disk)
        second_backend = None if second_disk is None else _backend(second_disk)
        self.disk_sectors = backend.sectors
        self.board = Board(
            self.clock,
            backend,
            on_serial=lambda byte: me._emit(me.serial_output, byte),
            on_debug=lambda byte: me._emit(me.debug_output, byte),
            on_exit=lambda value: me._on_exit(value),
            on_interrupt=lambda: me.processor.request_stop(),
            on_nmi=lambda: me.nmi(),
            second_disk=second_backend,
        )
        self.platform = Platform(
            self.board,
            self.ram.view,
            self.processor.engine,
            on_reset=lambda: me._on_reset(),
            on_power_off=lambda: me._on_power_off(),
            after_access=lambda: me._keep_appointments(),
        )
        self.processor.behind = self.platform.space
        self.allowance: Allowance | None = None
        """The instructions that may still be executed, if they are limited: see `allowing`."""
        self._nmi_waits = False
        self._is_off = False
        self._resets = False
        self.disks = [backend] if second_backend is None else [backend, second_backend]
        self.bios: Bios | None = None
        """The firmware, once `boot_disk` has brought it in."""
        self.console: ConsoleInput | None = None
        """Input from outside, once `connect` has been called."""
        self.complaints = Complaints(lambda: me.processor.now, lambda: me.where())
        self.board.complain_to(self.complaints)
        self.model = ModelRegisters(
            self.board.interrupts.lapic, self.platform.space, lambda: me.processor.now, lambda: me.where()
        )
        self.processor.ports = me

    def _emit(self, stream: bytearray, byte: int) -> None:
        if self.exit_value is not None:
            return  # the rest of the block behind the exit port's OUT: nothing of it is seen
        stream.append(byte)
        listener = self._listeners[id(stream)]
        if listener is not None:
            listener(byte)

    @property
    def screen(self) -> Screen:
        """What the VGA shows in text mode."""
        return self.platform.screen

    def type(self, text: str) -> None:
        """Type on the US keyboard; newline is Enter. Raises MachineError, with nothing typed, for what has no key.

        The codes wait until the guest takes them. After `boot_disk` the firmware does, as soon as interrupts are let
        through: of keys that no program asks for, its buffer holds 15, and those that come later are lost.
        """
        self.platform.keyboard.type(text)

    def feed(self, data: bytes) -> None:
        """Let bytes arrive at COM1; they wait on the line until the guest takes them."""
        self.board.uart.receive(data)

    def connect(self, source: ByteSource, sink: ByteSink) -> None:
        """Bring the bytes of ``source`` to ``sink`` while the machine runs, one by one, as the guest looks for them."""
        me = weakref.proxy(self)
        self.console = ConsoleInput(source, sink, lambda: me.processor.now, lambda: me.processor.on_breath())
        self.board.uart.on_wanted = lambda: me.processor.request_stop()

    @property
    def unclaimed(self) -> list[Unclaimed]:
        """Accesses that nobody answered, at ports first, then in memory, in order of address."""
        return list_unclaimed(self.board.ports.unclaimed, self.platform.space.unclaimed)

    def nmi(self) -> None:
        """Request a non-maskable interrupt; taken between two instructions, once none is being handled."""
        self._nmi_waits = True
        self.processor.request_stop()

    def _on_reset(self) -> None:
        """With firmware it starts again; without, nothing would, and the machine is off."""
        if self.bios is None:
            self._on_power_off()
        else:
            self._resets = True
            self.processor.request_stop()

    def _on_power_off(self) -> None:
        self._is_off = True
        self.processor.request_stop()

    def _on_exit(self, value: int) -> None:
        if self.exit_value is None:
            self.exit_value = value
        self.processor.request_stop()

    # -- ports -------------------------------------------------------------------------------

    def read(self, port: int, size: int) -> int:
        """IN: what the board answers."""
        if port == DATA_PORT:
            if size > 1 and self._a20_open:
                value = take_many(self.processor, self.board.disk, size)
                if value is not None:
                    return value
        else:
            self.processor.spend(ISA_ACCESS_CYCLES)
        return self.board.ports.read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT: tell the board; the run ends earlier if the device has planned something earlier."""
        if port != DATA_PORT:
            self.processor.spend(ISA_ACCESS_CYCLES)
            self.board.ports.write(port, size, value)
        elif size == 1 or not self._a20_open or not give_many(self.processor, self.board.disk, size, value):
            self.board.ports.write(port, size, value)
        self._keep_appointments()

    @property
    def _a20_open(self) -> bool:
        """Many steps at once are for addresses that mean what they say."""
        return self.platform.a20.enabled

    def _keep_appointments(self) -> None:
        event = self.clock.next_event()
        if event is not None:
            self.processor.limit_run(event)

    # -- running -----------------------------------------------------------------------------

    def boot_disk(self, image: Image | None = None) -> None:
        """Have the firmware boot from the first disk: its boot sector is entered in real mode, at 0:7C00.

        ``image`` gives names to addresses in messages. A disk without a boot sector ends with words on the screen.
        """
        if image is not None:
            self.images[self.world] = image
        self.exit_value = None
        put_tables(self.ram.view)
        self.bios = Bios(self.processor, self.board, self.disks)
        self.bios.start()

    def load(
        self,
        image: Image,
        options: BootOptions = BootOptions(),  # noqa: B008 - it can't change
        *,
        told_memory: int | None = None,
    ) -> None:
        """Load a kernel and set the processor to its first instruction. Raises ImageError.

        ``options`` are the multiboot command line and modules; ``told_memory`` is how many bytes of RAM, from 0, the
        multiboot information speaks of: all, if it isn't given.
        """
        self.told_memory = self.ram.size if told_memory is None else min(told_memory, self.ram.size)
        view = self.ram.view

        def write(address: GPA, data: bytes) -> None:
            view[address : address + len(data)] = data

        state = load_kernel(image, self.told_memory, write, options, len(self.disks))
        self.images[self.world] = image
        self.exit_value = None
        processor = self.processor
        processor.forget_code()
        processor.write_setting(Setting.GDTR, state.gdtr)
        segments = dict.fromkeys(SegmentRegister, state.data)
        segments[SegmentRegister.CS] = state.code
        processor.set_segments(segments)
        for index in range(8):
            processor.set_gpr(index, 0)
        processor.set_gpr(0, state.eax)
        processor.set_gpr(3, state.ebx)
        processor.eflags = 2
        processor.eip = state.eip

    def where(self) -> Where:
        """Whose code the processor is at, and where."""
        eip = self.processor.eip
        world = self.whose()
        image = self.images.get(world)
        return Where(world, eip, image.symbols.name_at(eip) if image else None)

    def slice(self, limit: int = NEVER, *, deliver: bool = True) -> Stop:
        """Run to the next moment at which something outside the processor may have to happen.

        Due events have happened and, if ``deliver``, a pending interrupt that IF and the interrupt
        shadow let through has been delivered before the run. Raises RunErrors.
        """
        self.clock.run_due()
        deadline = limit
        if self._nmi_waits:
            deadline = min(deadline, self.processor.now + 1)  # look again after a block
            if not self.processor.nmi_blocked and not self.processor.in_interrupt_shadow:
                self._nmi_waits = False
                self._deliver(self.processor.nmi)
        if self.board.interrupts.pending:
            if deliver and self.interruptible():
                self.interrupt()
            if self.board.interrupts.pending and deliver:
                deadline = min(deadline, self.processor.now + self.window_poll())
        event = self.clock.next_event()
        if event is not None:
            deadline = min(deadline, event)
        return self.run_processor(deadline)

    def window_poll(self) -> int:
        """For a pending interrupt that can't be taken now: how soon, in cycles, to look again.

        While IF is clear, the next run ends by itself as soon as it is set.
        """
        if self.processor.eflags & EFLAGS_IF:
            return 1  # an interrupt shadow: one block is enough
        self.processor.stop_when_open()
        return NEVER

    def interruptible(self) -> bool:
        """Whether an external interrupt would be taken now."""
        return bool(self.processor.eflags & EFLAGS_IF) and not self.processor.in_interrupt_shadow

    def interrupt(self) -> int:
        """Acknowledge the pending interrupt and deliver it through the current IDT; returns the vector."""
        vector = self.board.interrupts.acknowledge()
        self._deliver(lambda: self.processor.interrupt(vector))
        return vector

    def _deliver(self, deliver: Callable[[], object]) -> None:
        try:
            deliver()
        except Shutdown as shutdown:
            raise TripleFault(self.where(), shutdown.faults) from None
        except UnmappedAccess as access:
            raise NoMemory(self.where(), access.kind, access.physical) from None

    def run_processor(self, deadline: int) -> Stop:
        """`Processor.run`, with the engine's failures made into errors that say where."""
        if self.allowance is not None:
            deadline = self.allowance.bound(deadline)
        try:
            return self.processor.run(deadline)
        except Shutdown as shutdown:
            raise TripleFault(self.where(), shutdown.faults) from None
        except UnmappedAccess as access:
            raise NoMemory(self.where(), access.kind, access.physical) from None
        except UcError as error:
            raise EngineError(f"{self.where()}: the engine stopped: {error}") from error

    def wait_for_interrupt(self, limit: int = NEVER) -> bool:
        """After HLT: let time pass until an interrupt is pending; False if none will ever come."""
        if self._nmi_waits and not self.processor.nmi_blocked:
            return True
        if not self.processor.eflags & EFLAGS_IF:
            return False
        events = IDLE_EVENTS
        while not self.board.interrupts.pending:
            event = self.clock.next_event() if events else None
            came = None if self.console is None else self.console.wait(None if event is None else min(event, limit))
            if came is not None:
                self.processor.advance_to(came)
                self.clock.run_due()
                continue
            if event is None:
                return False
            if event >= limit:
                self.processor.advance_to(limit)
                return True
            self.processor.advance_to(event)
            self.clock.run_due()
            events -= 1
        return True

    def run(self, limit: int | None = None, between: Callable[[int], None] = lambda _limit: None) -> int:
        """Run until the machine ends; returns the exit status.

        0 after HLT with nothing that could wake it and after power-off, 2*value+1 after a write to the debug exit
        port. ``limit`` is in cycles of virtual time. ``between`` is called with it after every
        slice, while the processor is stopped. Raises LimitReached and other RunErrors.
        """
        end = NEVER if limit is None else limit
        with deferred_ctrl_c(self.processor.request_stop) as check_ctrl_c:
            self.processor.on_breath = check_ctrl_c
            while True:
                try:
                    stop = self.slice(end if self.console is None else self.console.deadline(end))
                except RunError:
                    if self.exit_value is None:
                        raise
                    stop = Stop.DEADLINE  # only the rest of the block behind the OUT that ended it all
                served = stop is Stop.HALT and self._served()  # before anything can interrupt this round
                between(end)
                check_ctrl_c()
                if self.console is not None:
                    self.console.look()
                if self.exit_value is not None:
                    return (2 * self.exit_value + 1) & 0xFF
                if self._is_off:
                    return 0
                if self._resets and self.bios is not None:
                    self._resets = False
                    self.platform.reset()
                    self.bios.start()
                    continue
                if stop is Stop.HALT and not served and not self.wait_for_interrupt(end):
                    return 0
                self.check_limit(end)

    @property
    def ending(self) -> str:
        """What a run that gave an exit status ended by."""
        if self.exit_value is not None:
            return f"debug exit port, value {self.exit_value:#x}"
        return "power off" if self._is_off else "a halt that nothing would end"

    def run_until(self, text: str, limit: int) -> None:
        """Run until this text is on the screen or has left by COM1 or port 0xe9; at most ``limit`` cycles more.

        Raises LimitReached if it doesn't come in time, and what `run` raises; MachineError if the machine ends first.
        """
        self._run_until(text, lambda look: self.run(self.processor.now + limit, look))

    def _run_until(self, text: str, run: Callable[[Callable[[int], None]], int]) -> None:
        wanted = text.encode("latin-1", "replace")
        next_look = 0

        def look(_end: int) -> None:
            nonlocal next_look
            if self.processor.now >= next_look:
                next_look = self.processor.now + LOOK_INTERVAL
                if wanted in self.serial_output or wanted in self.debug_output or text in self.screen.text:
                    raise _Found

        try:
            status = run(look)
        except _Found:
            return
        if wanted not in self.serial_output and wanted not in self.debug_output and text not in self.screen.text:
            raise MachineError(f"the machine ended (exit status {status}) without {text!r}")

    def _served(self) -> bool:
        """Whether the HLT was the entry of a service of the firmware, which has now been performed."""
        return self.bios is not None and self.bios.serve()

    def check_limit(self, limit: int) -> None:
        """Raise LimitReached once virtual time has come to ``limit``; do what is to be done after `allowing`."""
        if self.processor.now >= limit:
            raise LimitReached(self.where(), limit)
        allowance = self.allowance
        if allowance is not None and allowance.left <= 0:
            self.allowance = None
            allowance.then()

    @contextmanager
    def allowing(
        self, instructions: int, then: Callable[[], None] | None = None, *, since: int | None = None
    ) -> Iterator[None]:
        """Limit the runs of the block to so many instructions in all, the host's and those of its guests.

        They are used up at the first block boundary at or after them: then ``then`` is called, between two runs of the
        processor, and without it LimitReached raised. They are counted from now, or from where
        `Processor.instructions` was ``since``. A halted processor uses none, however long it waits.
        """
        self.processor.count_instructions()
        began = self.processor.instructions if since is None else since
        before = self.allowance
        self.allowance = Allowance(self.processor, instructions, began, then or partial(self._used_up, instructions))
        try:
            yield
        finally:
            self.allowance = before

    def _used_up(self, instructions: int) -> None:
        raise LimitReached(self.where(), instructions, "instructions")


class _Found(Exception):
    """What `Machine.run_until` waits for is there."""


def _backend(disk: bytes | SectorBackend) -> SectorBackend:
    return ImageBackend(disk) if isinstance(disk, bytes | bytearray) else disk
