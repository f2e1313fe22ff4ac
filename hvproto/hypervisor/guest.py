"""A hosted guest: its own board of devices, its own virtual time, and what it asks of the host.

What runs its code, deprivileged or not, is in `mirrored` and `direct`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import Any

from hvproto import events
from hvproto.addresses import HPA
from hvproto.errors import NoMemory, RunError, TripleFault, Where, World
from hvproto.events import EventBus
from hvproto.hypervisor.coupling import Replacement
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_pc import GuestPc
from hvproto.hypervisor.host_functions import FIFO, HostFunctions, Stream
from hvproto.images.image import Image
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.ata import DATA_PORT
from hvproto.machine.boot import BootState, load_kernel
from hvproto.machine.clock import CYCLES_PER_SECOND, Clock, Event
from hvproto.machine.console_input import ByteSource, ConsoleInput, SerialSink
from hvproto.machine.machine import IDLE_EVENTS, ISA_ACCESS_CYCLES, NEVER, Machine
from hvproto.machine.screen import Screen
from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.settings import Setting

TEXT_PATIENCE = CYCLES_PER_SECOND * FIFO * 10 // 115200
"""Cycles that a character may wait for company before it goes to the host, unless its line or the transmitter is full
or the guest waits itself: 1.4 ms, in which a 16550 sends as many as it holds. A kernel that makes each character a
system call of its own, as small ones do, takes 0.1 ms for it."""


class Leave(IntEnum):
    """Why a guest gives the processor back; the numbers are the run block's exit reasons."""

    INTERRUPT = 1
    IDLE = 2
    HALTED = 3
    WRITE = 4
    READ_BLOCK = 5
    FAILED = 6
    MOVE_IN = 7
    """It is to run inside the emulation program, which is to get ready for it (plan `application`)."""
    INSIDE = 8
    """It runs inside the emulation program, which is to go to it (plan `application`)."""
    EVENT = 9
    """An event of the guest's that its vector's route gives to the host."""
    TIME = 10
    """The cycles that it was given are used up."""
    FUNCTION = 0
    """A host function; which one is for the request to say."""


class Guest(ABC):
    """One hosted guest. Its clock runs only while it has the processor."""

    save_area: HPA
    """Where the host's settings are saved while this guest has the processor."""

    physical_window = 0
    """Where in host-physical space the guest's own addresses behind its RAM are answered."""

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
        """``options`` are the command line and the modules of a multiboot kernel."""
        self.number = number
        self.machine = machine
        self.image = image
        self.memory = memory
        self.bus = bus
        self.functions = HostFunctions()
        self.output = bytearray()
        self.error: RunError | None = None
        self.status: int | None = None
        """Exit status, once the guest has ended."""
        self.halted = False
        """The guest executed HLT and waits for an interrupt."""
        self._offered = False
        self.host_accepts_interrupts = True
        self.yields = False
        """It is to give the processor back at its next exit, as for an interrupt of the host's."""
        self.hosts_time_stands = False
        """This guest's stay takes the host's devices no time."""
        self.started = False
        self._options = options
        self._context = pristine
        self._skew = 0
        self._frozen_at: int | None = 0
        self.clock = Clock(lambda: self.now)
        self._drain: Event | None = None
        """When text goes to the host, if nothing else sends it before."""
        self.console: ConsoleInput | None = None
        """Input from outside, once `connect` has been called."""
        self._resets = False
        self._nmi_waits = False
        self.pc = GuestPc(self, self.clock, memory, self.functions, image, sectors)
        self.board = self.pc.board
        self.model = self.pc.model

    # -- time --------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The guest's virtual time, in cycles: it stands still while the host has the processor."""
        return self.machine.processor.now - self._skew if self._frozen_at is None else self._frozen_at

    def thaw(self) -> None:
        assert self._frozen_at is not None
        self._skew = self.machine.processor.now - self._frozen_at
        self._frozen_at = None

    def freeze(self) -> None:
        self._frozen_at = self.now

    def keep_time(self) -> None:
        """To be called between two runs of the processor: devices do what is due, and input comes in."""
        self.clock.run_due()
        if self.console is not None:
            self.console.look()

    def skip_to_next_event(self) -> bool:
        """Let the guest's time jump to its next event (it waits in HLT); False if there is none."""
        when = self.clock.next_event()
        if when is None:
            return False
        self._skip_to(when)
        return True

    def _skip_to(self, when: int) -> None:
        """Let the guest's time jump to ``when`` (cycles), if that isn't past, and its devices do what is due then."""
        self._skew -= max(when - self.now, 0)
        self.clock.run_due()

    def deadline(self, limit: int) -> int:
        """The machine time at which host or guest must be looked at again."""
        times = [limit]
        host = None if self.hosts_time_stands else self.machine.clock.next_event()
        if host is not None:
            times.append(host)
        own = self.clock.next_event()
        if own is not None:
            times.append(own + self._skew)
        if self.console is not None:
            times.append(self.console.deadline(NEVER - self._skew) + self._skew)
        return min(times)

    # -- devices -----------------------------------------------------------------------------

    def on_text(self, stream: Stream, byte: int) -> None:
        if not self.functions.has_text:
            self._drain = self.clock.move(self._drain, self.now + TEXT_PATIENCE, self._drain_text)
        self.functions.write(stream, byte)
        if not self.functions.has_text:
            self._drain = self.clock.move(self._drain, None, self._drain_text)
        if self.functions.waiting:
            self.machine.processor.request_stop()

    def find_drain(self) -> None:
        """The agenda has been put back: what it has for text that waits."""
        planned = (event for _, _, event in self.clock.agenda if event.action == self._drain_text)
        self._drain = next((event for event in planned if not event.cancelled), None)

    def _drain_text(self) -> None:
        self._drain = None
        self.functions.drain = self.functions.has_text

    def request_look(self) -> None:
        """Something has happened that may interrupt the guest."""
        self.machine.processor.request_stop()

    def request_reset(self) -> None:
        """The guest has reset its machine: its firmware starts again, or, without any, it is over."""
        if self.pc.bios is None:
            self.end(0, "reset")
        self._resets = self.pc.bios is not None
        self.machine.processor.request_stop()

    def type(self, text: str) -> None:
        """Type on the guest's keyboard, as `Machine.type` does. Raises MachineError."""
        self.pc.platform.keyboard.type(text)

    def feed(self, data: bytes) -> None:
        """Let bytes arrive at the guest's COM1."""
        self.board.uart.receive(data)

    def connect(self, source: ByteSource) -> None:
        """Bring the bytes of ``source`` to the guest's COM1, one by one, as the guest looks for them."""
        self.console = ConsoleInput(source, SerialSink(self.board.uart), lambda: self.now, self._check_for_ctrl_c)
        self.board.uart.on_wanted = self.request_look

    def _check_for_ctrl_c(self) -> None:
        self.machine.processor.on_breath()

    @property
    def screen(self) -> Screen:
        """What the guest's VGA shows in text mode."""
        return self.pc.platform.screen

    def nmi(self) -> None:
        """Request a non-maskable interrupt of the guest."""
        self._nmi_waits = True
        self.machine.processor.request_stop()

    def read(self, port: int, size: int) -> int:
        """IN on the guest's board; it takes as long as on the bare machine."""
        if port != DATA_PORT:
            self.machine.processor.spend(ISA_ACCESS_CYCLES)
        return self.board.ports.read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT on the guest's board; whatever it plans or asks for ends the run in time."""
        if port != DATA_PORT:
            self.machine.processor.spend(ISA_ACCESS_CYCLES)
        self.board.ports.write(port, size, value)
        self.keep_appointments()

    def read_many(self, port: int, size: int, count: int) -> bytes:
        """The same as so many times `read`."""
        data = self.board.disk.take(size * count) if port == DATA_PORT and size > 1 else b""
        data = data.ljust(-(-len(data) // size) * size, b"\0")
        left = count - len(data) // size
        return b"".join([data, *(self.read(port, size).to_bytes(size, "little") for _ in range(left))])

    def write_many(self, port: int, size: int, data: bytes) -> None:
        """The same as `write` for each ``size`` bytes."""
        done = 0
        if port == DATA_PORT and size > 1:
            done = min(self.board.disk.room // size * size, len(data))
            self.board.disk.give(data[:done])
            self.keep_appointments()
        for at in range(done, len(data), size):
            self.write(port, size, int.from_bytes(data[at : at + size], "little"))

    def keep_appointments(self) -> None:
        """A device may have planned something, or asked the host for it."""
        processor = self.machine.processor
        if self.functions.waiting or self.status is not None:
            processor.request_stop()
        processor.limit_run(self.deadline(NEVER))

    def end(self, status: int, reason: str) -> None:
        """The guest is over."""
        if self.status is None:
            self.status = status
            self.functions.drain = True
            self.bus.emit(events.GuestHalted(self.machine.processor.now, self.number, status, reason))

    # -- coupling ----------------------------------------------------------------------------

    def load(self, image: Image) -> BootState:
        """Put the guest's kernel into its memory. Raises ImageError."""
        self.machine.images[World.GUEST] = image
        return load_kernel(
            image, self.memory.size, lambda gpa, data: _store(self.memory, gpa, data), self._options, len(self.pc.disks)
        )

    @abstractmethod
    def where(self) -> Where:
        """Where the guest stands, by its own instruction pointer."""

    @abstractmethod
    def replacements(self) -> dict[Setting, Replacement]:
        """What the processor's settings are to be while this guest has it."""

    def enter(self) -> None:
        """Exchange the user-level state: the guest's comes in (step 28)."""
        processor = self.machine.processor
        processor.restore_user_state(self._context)
        processor.ports = self
        self.machine.world = World.GUEST
        self.machine.images[World.GUEST] = self.image
        self.machine.platform.space.divert(self.physical_window, self.pc.platform.space)
        self.thaw()

    def leave(self) -> None:
        """Keep the guest's state; its time stands still from here on."""
        self.freeze()
        self._context = self.machine.processor.save_context()
        self.machine.platform.space.divert(NEVER, None)
        self.machine.processor.ports = self.machine
        self.machine.world = World.HOST

    @abstractmethod
    def first_entry(self) -> None:
        """Set the processor to the guest's first instruction; the settings are in place."""

    @abstractmethod
    def run(self, limit: int) -> Leave:
        """Run the guest until the host is needed. Raises RunError when virtual time ends."""

    def as_error(self, problem: UnmappedAccess | Shutdown | RunError) -> RunError:
        """What ends the guest, as an error that says where it stood."""
        match problem:
            case UnmappedAccess():
                return NoMemory(self.where(), problem.kind, problem.physical)
            case Shutdown():
                return TripleFault(self.where(), problem.faults)
            case _:
                return problem

    def reason_to_leave(self) -> Leave | None:
        """Whether the host has to have the processor now, for reasons of the guest's."""
        if self.error is not None and self.functions.has_text:
            self.functions.drain = True  # what it has printed to the end
        if self.functions.waiting:
            return Leave.FUNCTION
        if self.error is not None:
            return Leave.FAILED
        if self.status is not None:
            return Leave.HALTED
        return None

    def wait(self, *, accepts_interrupts: bool) -> Leave | None:
        """The guest is in HLT: offer the processor to the host once, then let the guest's time jump.

        Returns why to leave, or None when an interrupt is there to be delivered.
        """
        if not accepts_interrupts:
            self.end(0, "HLT with interrupts off")
            return self.reason_to_leave()
        if self.board.interrupts.pending:
            return None
        if self.functions.has_text:
            self.functions.drain = True
            return Leave.FUNCTION
        if not self._offered:
            self._offered = True
            return Leave.IDLE
        self._offered = False
        events = IDLE_EVENTS
        while not self.board.interrupts.pending:
            if self._input_came(self.clock.next_event() if events else None):
                continue
            if not events or not self.skip_to_next_event():
                self.end(0, "HLT with nothing that could wake it")
                return self.reason_to_leave()
            events -= 1
        return None

    def _input_came(self, until: int | None) -> bool:
        """Wait for input that would wake the guest, until its own next event at ``until``, or for ever."""
        came = None if self.console is None else self.console.wait(until)
        if came is None:
            return False
        self._skip_to(came)
        return True

    def host_interrupt_pending(self) -> bool:
        """External interrupts belong to the host."""
        if self.hosts_time_stands:
            return False
        self.machine.clock.run_due()
        return self.yields or (self.machine.board.interrupts.pending and self.host_accepts_interrupts)


def _store(memory: GuestMemory, gpa: int, data: bytes) -> None:
    if data and not memory.write(gpa, data):
        raise AssertionError("the image was checked to fit")
