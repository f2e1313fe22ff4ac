"""What a bare PC has besides its board: clock chip, keyboard, screen, power, PCI and the APICs' pages of memory.

A hosted guest has one of its own, without an engine: its pages of memory are windows of the host's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from hvproto.machine import ioapic
from hvproto.machine.a20 import A20Gate, SystemControlPortA
from hvproto.machine.board import Board
from hvproto.machine.crtc import Crtc
from hvproto.machine.firmware_memory import rom_tables
from hvproto.machine.keyboard import KeyboardController
from hvproto.machine.lapic import Register
from hvproto.machine.pci import PciBus
from hvproto.machine.pci_functions import standard_functions
from hvproto.machine.physical_space import PhysicalSpace
from hvproto.machine.power import AcpiPowerManagement, EmulatorPowerOff, ResetControl
from hvproto.machine.rtc import Rtc
from hvproto.machine.screen import Screen
from hvproto.processor.engine import Engine
from hvproto.processor.linear_memory import PhysicalMemory

KEYBOARD_IRQ, RTC_IRQ, SCI_IRQ, AUX_IRQ = 1, 8, 9, 12


class Platform:
    """The rest of the PC on the board's port bus, and in the engine's physical memory.

    ``after_access`` is called after each access to a device in memory, which may have planned something.
    """

    def __init__(
        self,
        board: Board,
        ram: PhysicalMemory,
        engine: Engine | None,
        *,
        on_reset: Callable[[], None],
        on_power_off: Callable[[], None],
        after_access: Callable[[], None],
    ) -> None:
        line = board.interrupts.line
        self.a20 = A20Gate(lambda _enabled: None)
        self.rtc = Rtc(board.clock, line(RTC_IRQ), len(ram))
        self.keyboard = KeyboardController(board.clock, line(KEYBOARD_IRQ), self.a20, on_reset, line(AUX_IRQ))
        self.power = AcpiPowerManagement(board.clock, line(SCI_IRQ), on_power_off)
        self.pci = PciBus(standard_functions())
        self.crtc = Crtc()
        self.screen = Screen(ram, self.crtc)
        devices = (
            self.rtc, self.keyboard, SystemControlPortA(self.a20, on_reset), ResetControl(lambda _hard: on_reset()),
            self.power, EmulatorPowerOff(on_power_off), self.pci, self.crtc,
        )  # fmt: skip
        for device in devices:
            board.ports.attach(device, device.ports)
        self.space = PhysicalSpace(engine, len(ram), after_access)
        self.space.attach(board.interrupts.lapic, board.interrupts.lapic.base)
        self._interrupts = board.interrupts
        self._lapic = board.interrupts.lapic
        me = weakref.proxy(self)
        self._lapic.on_identity = lambda value: me.space.publish(me._lapic, Register.ID, value)
        self.space.publish(self._lapic, Register.ID, self._lapic.read_mmio(Register.ID, 4))
        self.space.attach(board.interrupts.ioapic, ioapic.DEFAULT_BASE, ioapic.SIZE)

    def reset(self) -> None:
        """What the machine's reset line does to the APICs; the firmware sees to the other devices."""
        self._interrupts.reset()
        self.space.detach(self._lapic)
        self.space.attach(self._lapic, self._lapic.base)


def put_tables(ram: PhysicalMemory) -> None:
    """The MP and ACPI tables that a kernel finds in the firmware's memory."""
    for address, content in rom_tables():
        ram[address : address + len(content)] = content
