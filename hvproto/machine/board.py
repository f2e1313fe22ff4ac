"""The devices of one PC, wired to each other: the machine has a board, and so has each hosted guest."""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.ata import AtaDisk, SectorBackend
from hvproto.machine.clock import Clock
from hvproto.machine.complaints import Complaints
from hvproto.machine.debug import DebugConsole, DebugExit
from hvproto.machine.interrupts import InterruptRouter
from hvproto.machine.pit import Pit8254
from hvproto.machine.ports import PortBus
from hvproto.machine.uart import Uart16550A

TIMER_IRQ = 0
SERIAL_IRQ = 4
DISK_IRQ = 14


class Board:
    """Interrupt controllers, timer, COM1, disk, debug console and debug exit on one port bus.

    What leaves the board goes to the callables: characters of COM1 and of port 0xe9, the value
    written to the debug exit port, and a call whenever the interrupt output changes.
    """

    def __init__(
        self,
        clock: Clock,
        disk: SectorBackend,
        *,
        on_serial: Callable[[int], None],
        on_debug: Callable[[int], None],
        on_exit: Callable[[int], None],
        on_interrupt: Callable[[], None],
        on_nmi: Callable[[], None] = lambda: None,
        second_disk: SectorBackend | None = None,
    ) -> None:
        self.clock = clock
        self.ports = PortBus()
        self.interrupts = InterruptRouter(clock, on_interrupt, on_nmi)
        self.pic = self.interrupts.pic
        self.pit = Pit8254(clock, self.interrupts.line(TIMER_IRQ))
        self.uart = Uart16550A(on_serial, self.interrupts.line(SERIAL_IRQ))
        self.disk = AtaDisk(disk, self.interrupts.line(DISK_IRQ), second_disk)
        self.debug_console = DebugConsole(on_debug)
        self.debug_exit = DebugExit(on_exit)
        for device in (self.pic, self.pit, self.uart, self.disk, self.debug_console, self.debug_exit):
            self.ports.attach(device, device.ports)

    def complain_to(self, complaints: Complaints) -> None:
        """Have the devices say what they are misused for."""
        self.pit.complain = complaints.of("8254")
        self.uart.complain = complaints.of("COM1")
        self.disk.complain = complaints.of("disk")
        self.interrupts.lapic.complain = complaints.of("local APIC")
