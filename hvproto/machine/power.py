"""How a PC is reset and switched off: the reset control register, ACPI power management, emulators' own ports.

The reset control register is the PCI-to-ISA bridge's (Intel 82371SB, order no. 290550, RC at 0xcf9). The power
management block has the layout of the 82371AB (PIIX4, order no. 290562, function 3: PMSTS, PMEN, PMCNTRL, PMTMR) and
the meaning of the ACPI specification 1.0b, section 4.7.3. The two power-off ports are emulators' (no data sheet).
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.clock import CYCLES_PER_PIT_TICK, Clock, Event
from hvproto.machine.pic import IrqLine

RESET_CONTROL_PORT = 0xCF9
PM_BASE = 0xB000
PM_TIMER_PORT = PM_BASE + 8
PM_BLOCK_SIZE = 12
PM_TIMER_BITS = 24
PM_TIMER_PER_PIT_TICK = 3
"""The PM timer counts at 3.579545 MHz, thrice the interval timer's input clock (ACPI 1.0b, 4.7.3.3)."""
SLEEP_TYPE_OFF = 0
"""The PIIX4's SLP_TYP for soft off (S5): what a DSDT's ``_S5`` has to say."""
SHUTDOWN_PORT = 0x8900
QEMU_POWER_PORT = 0x604

_HARD, _RESET = 0x02, 0x04  # reset control

# Offsets in the power management block, and bits there.
_STATUS, _ENABLE, _CONTROL, _TIMER = 0, 2, 4, 8
_TIMER_STATUS, _GLOBAL_STATUS, _BUTTON_STATUS, _RTC_STATUS, _WAKE_STATUS = 0x0001, 0x0020, 0x0100, 0x0400, 0x8000
_STATUS_BITS = _TIMER_STATUS | _GLOBAL_STATUS | _BUTTON_STATUS | _RTC_STATUS | _WAKE_STATUS
_ENABLE_BITS = _STATUS_BITS & ~_WAKE_STATUS
_SCI_ENABLE, _SLEEP_TYPE, _SLEEP_ENABLE = 0x0001, 0x1C00, 0x2000
_CONTROL_BITS = _SCI_ENABLE | 0x0002 | _SLEEP_TYPE  # bit 1, BM_RLD, is only stored; SLP_EN always reads 0

_CARRY_TICKS = 1 << PM_TIMER_BITS - 1  # the timer's status is set when its top bit changes, either way


class ResetControl:
    """Port 0xcf9: bit 2 resets when it rises; ``on_reset`` is told whether bit 1 wants everything reset (6, 0xe) or,
    without it (4), the processor only."""

    ports = (RESET_CONTROL_PORT,)

    def __init__(self, on_reset: Callable[[bool], None]) -> None:
        self._on_reset = on_reset
        self._value = 0

    def read_port(self, port: int, size: int) -> int:
        return self._value

    def write_port(self, port: int, size: int, value: int) -> None:
        rises = value & ~self._value & _RESET
        self._value = value & 0x0E
        if rises:
            self._value &= ~_RESET  # the reset that follows clears it
            self._on_reset(bool(value & _HARD))


class AcpiPowerManagement:
    """The ACPI registers at 0xb000: PM1a event block, PM1a control block at 0xb004, PM timer at 0xb008.

    SLP_EN with the sleep type for off calls ``on_power_off``; with another type it is as if the machine had slept and
    been woken at once (WAK_STS is set). ``sci`` is the system control interrupt, usually line 9, active high here.
    SCI_EN is set from the beginning and can simply be written: there is no system management mode that would have to
    hand over (a FADT has to say SMI_CMD = 0).
    """

    ports = tuple(range(PM_BASE, PM_BASE + PM_BLOCK_SIZE))
    wide_ports = frozenset(ports)

    def __init__(self, clock: Clock, sci: IrqLine, on_power_off: Callable[[], None]) -> None:
        self._clock = clock
        self._sci = sci
        self._on_power_off = on_power_off
        self._status = 0
        self._enabled = 0
        self._control = _SCI_ENABLE
        self._carries = 0  # changes of the timer's top bit that the status knows
        self._event: Event | None = None

    @property
    def timer(self) -> int:
        """The PM timer: 24 bits at 3.579545 MHz, `PM_TIMER_PER_PIT_TICK` times the interval timer's input clock."""
        return self._ticks() % (1 << PM_TIMER_BITS)

    def press_power_button(self) -> None:
        """Let somebody press the power button: PWRBTN_STS, and an interrupt if it is enabled."""
        self._status |= _BUTTON_STATUS
        self._settle()

    def read_port(self, port: int, size: int) -> int:
        self._settle()
        registers = self._status | self._enabled << 16 | self._control << 32 | self.timer << 8 * _TIMER
        return registers >> 8 * (port - PM_BASE) & (1 << 8 * size) - 1

    def write_port(self, port: int, size: int, value: int) -> None:
        self._settle()
        first = port - PM_BASE
        written = value << 8 * first
        touched = (1 << 8 * size) - 1 << 8 * first
        self._status &= ~(written & 0xFFFF)  # writing a 1 clears
        self._enabled = _replace(self._enabled, written >> 16, touched >> 16) & _ENABLE_BITS
        control = _replace(self._control, written >> 32, touched >> 32)
        self._control = control & _CONTROL_BITS
        self._settle()
        if control & _SLEEP_ENABLE:
            self._sleep((control & _SLEEP_TYPE) >> 10)

    def _sleep(self, kind: int) -> None:
        if kind == SLEEP_TYPE_OFF:
            self._on_power_off()
        else:
            self._status |= _WAKE_STATUS
            self._settle()

    def _ticks(self) -> int:
        return self._clock.now * PM_TIMER_PER_PIT_TICK // CYCLES_PER_PIT_TICK

    def _settle(self) -> None:
        """Bring the timer's status and the interrupt up to date, and plan the next change of the timer's top bit."""
        carries = self._ticks() // _CARRY_TICKS
        if carries != self._carries:
            self._carries = carries
            self._status |= _TIMER_STATUS
        self._sci(bool(self._control & _SCI_ENABLE and self._status & self._enabled))
        wanted = self._control & _SCI_ENABLE and self._enabled & ~self._status & _TIMER_STATUS
        when = None
        if wanted:  # rounded up
            when = -(-(carries + 1) * _CARRY_TICKS * CYCLES_PER_PIT_TICK // PM_TIMER_PER_PIT_TICK)
        self._event = self._clock.move(self._event, when, self._on_carry)

    def _on_carry(self) -> None:
        self._event = None
        self._settle()


class EmulatorPowerOff:
    """The ports by which kernels switch emulators off without ACPI: both call ``on_power_off``.

    Bochs, and QEMU before 2.0: the text "Shutdown", byte by byte to 0x8900. QEMU: the word 0x2000 to 0x604, which is
    its own PM1a control register (so 0x20 to 0x605 does it, too). Reads give 0.
    """

    ports = (SHUTDOWN_PORT, QEMU_POWER_PORT, QEMU_POWER_PORT + 1)

    def __init__(self, on_power_off: Callable[[], None]) -> None:
        self._on_power_off = on_power_off
        self._text = b""

    def read_port(self, port: int, size: int) -> int:
        return 0

    def write_port(self, port: int, size: int, value: int) -> None:
        if port == SHUTDOWN_PORT:
            self._text = (self._text + bytes((value,)))[-8:]
            if self._text == b"Shutdown":
                self._text = b""
                self._on_power_off()
        elif port == QEMU_POWER_PORT + 1:
            control = value << 8
            if control & _SLEEP_ENABLE and (control & _SLEEP_TYPE) >> 10 == SLEEP_TYPE_OFF:
                self._on_power_off()


def _replace(old: int, new: int, mask: int) -> int:
    """A 16-bit register after a write of those of its bits that ``mask`` has."""
    return (old & ~mask | new & mask) & 0xFFFF
