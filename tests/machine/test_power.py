"""Reset control, ACPI power management and the emulators' power-off ports."""

from __future__ import annotations

import pytest

from hvproto.machine.clock import CYCLES_PER_PIT_TICK, CYCLES_PER_SECOND, Clock
from hvproto.machine.pic import Pic8259Pair
from hvproto.machine.ports import PortBus
from hvproto.machine.power import AcpiPowerManagement, EmulatorPowerOff, ResetControl
from tests.support.kernels import booted, word

STATUS, ENABLE, CONTROL, TIMER = 0xB000, 0xB002, 0xB004, 0xB008


class Bench:
    def __init__(self) -> None:
        self.cycle = 0
        self.resets: list[bool] = []
        self.offs = 0
        self.sci = False
        self.clock = Clock(lambda: self.cycle)
        self.power = AcpiPowerManagement(self.clock, self._set_sci, self._off)
        self.bus = PortBus()
        for device in (self.power, ResetControl(self.resets.append), EmulatorPowerOff(self._off)):
            self.bus.attach(device, device.ports)

    def _off(self) -> None:
        self.offs += 1

    def _set_sci(self, level: bool) -> None:
        self.sci = level

    def run_to(self, cycle: int) -> None:
        while (when := self.clock.next_event()) is not None and when <= cycle:
            self.cycle = max(self.cycle, when)
            self.clock.run_due()
        self.cycle = cycle


@pytest.mark.parametrize(
    ("values", "resets"),
    [((2,), []), ((6,), [True]), ((2, 6), [True]), ((0xE,), [True]), ((4,), [False]), ((2, 6, 6), [True, True])],
)
def test_reset_control(values: tuple[int, ...], resets: list[bool]) -> None:
    bench = Bench()
    for value in values:
        bench.bus.write(0xCF9, 1, value)
    assert bench.resets == resets
    assert bench.bus.read(0xCF9, 1) == values[-1] & ~4


def test_the_timer_counts_three_per_pulse_of_the_interval_timer() -> None:
    bench = Bench()
    assert bench.bus.read(TIMER, 4) == 0
    bench.cycle = CYCLES_PER_PIT_TICK * 1000 + -(-CYCLES_PER_PIT_TICK // 3)
    assert bench.bus.read(TIMER, 4) == 3001
    bench.cycle = CYCLES_PER_SECOND
    assert bench.bus.read(TIMER, 4) == 3_579_546
    bench.bus.write(TIMER, 4, 0)  # read-only
    assert bench.bus.read(TIMER, 4) == 3_579_546 == bench.power.timer
    assert [bench.bus.read(TIMER + at, 1) for at in range(4)] == list((3_579_546).to_bytes(4, "little"))
    bench.cycle = ((1 << 24) + 3) * CYCLES_PER_PIT_TICK // 3
    assert bench.bus.read(TIMER, 4) == 2


def test_the_timers_interrupt() -> None:
    bench = Bench()
    assert bench.clock.next_event() is None
    bench.bus.write(ENABLE, 2, 1)
    half = -(-(1 << 23) * CYCLES_PER_PIT_TICK // 3)
    assert bench.clock.next_event() == half
    bench.run_to(half - 1)
    assert (bench.sci, bench.bus.read(STATUS, 2)) == (False, 0)
    bench.run_to(half)
    assert (bench.sci, bench.bus.read(STATUS, 2)) == (True, 1)
    assert bench.clock.next_event() is None  # until the status is cleared
    bench.bus.write(STATUS, 2, 0xFFFE)
    assert bench.sci
    bench.bus.write(STATUS, 2, 1)
    assert (bench.sci, bench.bus.read(STATUS, 2)) == (False, 0)
    bench.run_to(2 * half)
    assert bench.sci


def test_the_timers_status_needs_no_interrupt() -> None:
    bench = Bench()
    bench.cycle = 3 * CYCLES_PER_SECOND  # its top bit changes every 2.34 seconds
    assert bench.bus.read(STATUS, 4) == 1
    assert not bench.sci


def test_the_power_button() -> None:
    bench = Bench()
    bench.bus.write(CONTROL, 2, 0)
    bench.power.press_power_button()
    bench.bus.write(STATUS, 4, 0x0100_0000)  # enable, clear nothing
    assert bench.bus.read(STATUS, 4) == 0x0100_0100
    assert not bench.sci
    bench.bus.write(CONTROL, 1, 1)
    assert bench.sci
    bench.bus.write(STATUS + 1, 1, 1)
    assert not bench.sci


@pytest.mark.parametrize(
    ("port", "size", "value"), [(CONTROL, 2, 0x2000), (CONTROL + 1, 1, 0x20), (CONTROL, 4, 0x2001)]
)
def test_power_off_by_acpi(port: int, size: int, value: int) -> None:
    bench = Bench()
    bench.bus.write(port, size, value)
    assert bench.offs == 1
    assert bench.bus.read(CONTROL, 2) & 0x2000 == 0


def test_another_sleep_ends_at_once() -> None:
    bench = Bench()
    bench.bus.write(CONTROL, 2, 0x3401)
    assert bench.offs == 0
    assert bench.bus.read(CONTROL, 2) == 0x1401
    assert bench.bus.read(STATUS, 2) == 0x8000
    bench.bus.write(STATUS, 2, 0x8000)
    assert bench.bus.read(STATUS, 2) == 0


def test_the_emulators_ports() -> None:
    bench = Bench()
    for byte in b"xShutShutdow":
        bench.bus.write(0x8900, 1, byte)
    assert bench.offs == 0
    bench.bus.write(0x8900, 1, ord("n"))
    assert bench.offs == 1
    bench.bus.write(0x604, 2, 0x3400)
    bench.bus.write(0x604, 2, 0x0000)
    assert bench.offs == 1
    bench.bus.write(0x604, 2, 0x2000)
    assert bench.offs == 2
    assert bench.bus.read(0x604, 2) == 0


def test_a_kernel_waits_by_the_timer_and_switches_off(engine: str) -> None:
    machine = booted(
        engine,
        """
        mov dx, 0xb008
        in eax, dx
        mov ebx, eax
wait:   in eax, dx
        sub eax, ebx
        and eax, 0xffffff
        cmp eax, 3579               ; a millisecond
        jb wait
        mov [seen], eax
        mov dx, 0xb004
        mov ax, 0x2000
        out dx, ax
        hlt
""",
    )
    assert machine.run(10_000_000) == 0
    assert 3579 <= word(machine, "seen") < 3600
    assert 1 <= machine.processor.now * 1000 / CYCLES_PER_SECOND < 1.015


def test_the_system_control_interrupt_reaches_the_slave() -> None:
    pic = Pic8259Pair()
    cycle = 0
    power = AcpiPowerManagement(Clock(lambda: cycle), pic.line(9), lambda: None)
    power.write_port(ENABLE, 2, 0x0100)
    power.press_power_button()
    assert pic.slave.requests == 2
