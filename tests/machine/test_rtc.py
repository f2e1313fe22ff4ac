"""The real time clock, at its two ports and in a kernel."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.clock import CYCLES_PER_SECOND, Clock
from hvproto.machine.ports import PortBus
from hvproto.machine.rtc import Rtc
from hvproto.machine.rtc_time import Coding
from tests.support.kernels import booted, word

SECOND = CYCLES_PER_SECOND
MIB = 1 << 20


class Bench:
    def __init__(self, start: datetime = datetime(2000, 1, 1), ram_size: int = 64 * MIB) -> None:
        self.cycle = 0
        self.level = False
        self.rises: list[int] = []
        self.clock = Clock(lambda: self.cycle)
        self.rtc = Rtc(self.clock, self._set_line, ram_size, start=start)
        self.bus = PortBus()
        self.bus.attach(self.rtc, self.rtc.ports)

    def _set_line(self, level: bool) -> None:
        if level and not self.level:
            self.rises.append(self.cycle)
        self.level = level

    def run_to(self, cycle: int, acknowledge: bool = False) -> None:
        while (when := self.clock.next_event()) is not None and when <= cycle:
            self.cycle = max(self.cycle, when)
            self.clock.run_due()
            if acknowledge and self.level:
                assert self[0x0C] & 0x80
        self.cycle = cycle

    def __getitem__(self, register: int) -> int:
        self.bus.write(0x70, 1, register)
        return self.bus.read(0x71, 1)

    def __setitem__(self, register: int, value: int) -> None:
        self.bus.write(0x70, 1, register)
        self.bus.write(0x71, 1, value)

    def time(self) -> list[int]:
        """Century, year, month, day, hours, minutes, seconds, as they are in the registers."""
        return [self[register] for register in (0x32, 9, 8, 7, 4, 2, 0)]

    def set_alarm(self, hour: int, minute: int, second: int) -> None:
        self[5], self[3], self[1] = hour, minute, second


def bcd(number: int) -> int:
    return int(str(number), 16)


# -- time ------------------------------------------------------------------------------------


def test_it_starts_where_it_is_told_to() -> None:
    assert Bench().time() == [0x20, 0, 1, 1, 0, 0, 0]
    assert Bench()[6] == 7  # a Saturday
    bench = Bench(datetime(1994, 11, 30, 23, 59, 58))
    assert bench.time() == [0x19, 0x94, 0x11, 0x30, 0x23, 0x59, 0x58]
    assert (bench[0x0A], bench[0x0B], bench[0x0C], bench[0x0D]) == (0x26, 0x02, 0, 0x80)


def test_it_runs_by_the_virtual_clock() -> None:
    bench = Bench()
    bench.cycle = SECOND - 1
    assert bench[0] == 0
    bench.cycle = SECOND
    assert bench[0] == 1
    bench.cycle = 86_400 * SECOND - 1
    assert bench.time() == [0x20, 0, 1, 1, 0x23, 0x59, 0x59]
    bench.cycle += 1
    assert bench.time() == [0x20, 0, 1, 2, 0, 0, 0]
    assert bench[6] == 1
    assert bench.rises == []


@pytest.mark.parametrize(
    ("start", "after"),
    [
        (datetime(2000, 2, 28, 23, 59, 59), [0x20, 0, 2, 0x29, 0, 0, 0]),
        (datetime(2001, 2, 28, 23, 59, 59), [0x20, 1, 3, 1, 0, 0, 0]),
        (datetime(1999, 12, 31, 23, 59, 59), [0x20, 0, 1, 1, 0, 0, 0]),
        (datetime(9999, 12, 31, 23, 59, 59), [0, 1, 1, 1, 0, 0, 0]),
    ],
)
def test_carries(start: datetime, after: list[int]) -> None:
    bench = Bench(start)
    bench.cycle = SECOND
    assert bench.time() == after


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.lists(st.integers(0, SECOND // 3), max_size=5),
    st.sampled_from([0x00, 0x02, 0x04, 0x06]),
)
def test_time_in_every_coding(start: datetime, steps: list[int], coding: int) -> None:
    bench = Bench()
    bench[0x0B] = coding
    bench.rtc.set_time(start)
    now = start
    for step in steps:
        bench.cycle += step * SECOND
        now += timedelta(seconds=step)
        write = int if coding & 4 else bcd
        hour = now.hour if coding & 2 else now.hour % 12 or 12
        expected = [write(number) for number in (now.year // 100, now.year % 100, now.month, now.day, hour)]
        expected[4] |= 0x80 if not coding & 2 and now.hour >= 12 else 0
        assert bench.time() == [*expected, write(now.minute), write(now.second)]
        assert bench[6] == now.isoweekday() % 7 + 1


@pytest.mark.parametrize(("hour", "raw"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)])
def test_twelve_hours(hour: int, raw: int) -> None:
    assert Coding(0).encode_hour(hour) == raw
    assert Coding(0).decode_hour(raw) == hour


def test_setting_the_time() -> None:
    bench = Bench()
    bench[0x0B] = 0x82
    for register, value in ((0, 0x58), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19), (6, 6)):
        bench[register] = value
    bench.cycle = 10 * SECOND
    assert bench.time() == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58]  # it stands still
    bench[0x0B] = 0x02
    bench.cycle = 12 * SECOND
    assert bench.time() == [0x20, 0, 1, 1, 0, 0, 0]
    assert bench[6] == 7


def test_what_is_no_time_still_goes_on() -> None:
    bench = Bench()
    for register in (0, 2, 4, 6, 7, 8, 9, 0x32):
        bench[register] = 0xFF
    bench.cycle = SECOND
    assert bench[0] == 0
    for register in (0, 2, 4, 6, 7, 8, 9, 0x32):
        bench[register] = 0
    bench.cycle = 3 * SECOND
    assert bench[0] == 2


def test_the_divider_in_reset() -> None:
    bench = Bench()
    bench.cycle = 5 * SECOND + SECOND // 4
    bench[0x0A] = 0x66
    bench.cycle = 100 * SECOND
    assert bench[0] == 5
    bench[0x0A] = 0x26
    bench.cycle += SECOND // 2 - 1
    assert bench[0] == 5
    bench.cycle += 1
    assert bench[0] == 6


def test_update_in_progress() -> None:
    bench = Bench()
    window = 2_228 * SECOND // 1_000_000
    for cycle, updating in ((0, 0), (SECOND - window - 1, 0), (SECOND - window, 0x80), (SECOND - 1, 0x80), (SECOND, 0)):
        bench.cycle = cycle
        assert bench[0x0A] & 0x80 == updating, cycle
    bench.cycle = 2 * SECOND - 1
    bench[0x0B] = 0x82
    assert bench[0x0A] & 0x80 == 0


# -- interrupts ------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", range(1, 16))
def test_periodic_interrupt(rate: int) -> None:
    hertz = {1: 256, 2: 128}.get(rate, 65_536 >> rate)
    bench = Bench()
    bench[0x0A] = 0x20 | rate
    bench[0x0B] = 0x42
    bench.run_to(SECOND, acknowledge=True)
    assert bench.rises == [-(-number * SECOND // hertz) for number in range(1, hertz + 1)]


def test_rate_0_is_off() -> None:
    bench = Bench()
    bench[0x0A] = 0x20
    bench[0x0B] = 0x42
    assert bench.clock.next_event() is None
    bench.cycle = SECOND
    assert bench[0x0C] == 0x10


def test_without_acknowledgement_there_is_one_interrupt() -> None:
    bench = Bench()
    bench[0x0B] = 0x42
    bench.run_to(SECOND // 2)
    assert len(bench.rises) == 1
    assert bench.clock.next_event() is None
    assert (bench[0x0C], bench.level, bench[0x0C]) == (0xC0, False, 0)


def test_flags_need_no_interrupt() -> None:
    bench = Bench()
    assert bench.clock.next_event() is None
    bench.cycle = SECOND
    assert (bench[0x0C], bench[0x0C]) == (0x50, 0)
    bench.cycle = 86_400 * SECOND
    assert bench[0x0C] == 0x70  # the alarm was for midnight
    assert bench.rises == []


def test_update_ended_interrupt() -> None:
    bench = Bench()
    bench[0x0B] = 0x12
    bench.run_to(3 * SECOND, acknowledge=True)
    assert bench.rises == [SECOND, 2 * SECOND, 3 * SECOND]
    bench[0x0B] = 0x92
    assert bench[0x0B] == 0x82  # setting the time disables it
    bench.run_to(10 * SECOND)
    assert len(bench.rises) == 3


@pytest.mark.parametrize(
    ("alarm", "seconds"),
    [
        ((0x00, 0x00, 0x05), [5]),
        ((0x00, 0x01, 0x00), [60]),
        ((0xFF, 0xFF, 0x07), [7, 67, 127, 187]),
        ((0xC0, 0x02, 0xFF), [*range(120, 180)]),
        ((0x23, 0x00, 0x00), []),
        ((0x99, 0x00, 0x00), []),
    ],
)
def test_alarm(alarm: tuple[int, int, int], seconds: list[int]) -> None:
    bench = Bench()
    bench.set_alarm(*alarm)
    bench[0x0B] = 0x22
    bench.run_to(200 * SECOND, acknowledge=True)
    assert bench.rises == [second * SECOND for second in seconds]


def test_an_alarm_of_the_next_day() -> None:
    bench = Bench(datetime(2000, 1, 1, 12))
    bench[0x0B] = 0x20  # 12 hours
    bench[4] = 0x92
    bench.set_alarm(0x07, 0x30, 0x00)
    assert bench.clock.next_event() == (19 * 3600 + 1800) * SECOND
    bench.run_to(bench.clock.next_event() or 0)
    assert bench[0x0C] == 0xF0


def test_the_alarm_flag_after_a_long_time_without_a_look() -> None:
    bench = Bench()
    bench.set_alarm(0x01, 0x00, 0x00)
    bench.cycle = 3599 * SECOND
    assert bench[0x0C] & 0x20 == 0
    bench.cycle = 7200 * SECOND
    assert bench[0x0C] & 0x20


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.booleans(), st.integers(0, 3 * SECOND)), max_size=40
    )
)
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, bool, int]]) -> None:
    bench = Bench()
    for register, value, read, cycles in accesses:
        if read:
            assert 0 <= bench[register] <= 255
        else:
            bench[register] = value
        next_event = bench.clock.next_event()
        assert next_event is None or next_event > bench.cycle
        assert bench.level == bool(bench.rtc.memory[0x0C] & 0x80)
        bench.run_to(bench.cycle + cycles)


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ram_size", "base", "extended", "above_16m"),
    [(MIB, 640, 0, 0), (2 * MIB, 640, 1024, 0), (16 * MIB, 640, 15 * 1024, 0), (64 * MIB, 640, 63 * 1024, 48 * 16),
     (2048 * MIB, 640, 0xFFFF, 2032 * 16)],
)  # fmt: skip
def test_memory_sizes(ram_size: int, base: int, extended: int, above_16m: int) -> None:
    bench = Bench(ram_size=ram_size)
    assert [bench[at] | bench[at + 1] << 8 for at in (0x15, 0x17, 0x30, 0x34)] == [base, extended, extended, above_16m]


def test_what_a_bios_keeps() -> None:
    bench = Bench()
    assert (bench[0x0F], bench[0x12], bench[0x14], bench[0x19]) == (0, 0xF0, 0x02, 47)
    assert bench[0x2E] << 8 | bench[0x2F] == sum(bench[at] for at in range(0x10, 0x2E))
    bench[0x0F] = 0x0A
    assert bench[0x0F] == 0x0A == bench.rtc.memory[0x0F]
    bench[0x7F] = 0x5A
    assert bench[0x7F] == 0x5A
    bench[0x0D] = 0
    assert bench[0x0D] == 0x80


def test_the_nmi_mask() -> None:
    bench = Bench()
    assert not bench.rtc.nmi_masked
    bench.bus.write(0x70, 1, 0x8D)
    assert bench.rtc.nmi_masked
    assert bench.bus.read(0x71, 1) == 0x80
    assert bench.bus.read(0x70, 1) == 0xFF
    bench.bus.write(0x70, 1, 0x0D)
    assert not bench.rtc.nmi_masked


# -- in a kernel -----------------------------------------------------------------------------


def test_a_kernel_with_the_periodic_interrupt(engine: str) -> None:
    machine = booted(
        engine,
        """
        GATE 0x28, clock, 0x8e00
        mov al, 0xfb                ; the cascade only
        out 0x21, al
        mov al, 0xfe
        out 0xa1, al
        mov al, 0x0a
        out 0x70, al
        mov al, 0x2f                ; 2 Hz
        out 0x71, al
        mov al, 0x0b
        out 0x70, al
        mov al, 0x42
        out 0x71, al
again:  sti
        hlt
        cmp dword ptr [ticks], 7
        jb again
        mov al, 0
        out 0x70, al
        in al, 0x71
        mov [seen], al
        mov al, 0
        out 0xf4, al
        jmp $
clock:  push eax
        mov al, 0x0c
        out 0x70, al
        in al, 0x71
        test al, 0x40
        jz none
        inc dword ptr [ticks]
none:   mov al, 0x20
        out 0xa0, al
        out 0x20, al
        pop eax
        iretd
""",
    )
    assert machine.run() == 1
    assert (word(machine, "ticks"), word(machine, "seen")) == (7, 3)
    assert 3.5 <= machine.processor.now / CYCLES_PER_SECOND < 3.51


def test_a_kernel_that_halts_with_the_clocks_interrupt_masked_has_ended(engine: str) -> None:
    machine = booted(engine, "mov al, 0x0b\nout 0x70, al\nmov al, 0x52\nout 0x71, al\nsti\nhlt\nhlt")
    assert machine.run() == 0
