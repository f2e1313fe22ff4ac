"""The interval timer at its ports; every mode against a model that counts clock pulse by clock pulse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.clock import CYCLES_PER_PIT_TICK as TICK
from hvproto.machine.clock import Clock
from hvproto.machine.pit import Pit8254
from hvproto.machine.ports import PortBus


class Bench:
    def __init__(self) -> None:
        self.cycle = 0
        self.edges: list[tuple[int, bool]] = []
        self.clock = Clock(lambda: self.cycle)
        self.pit = Pit8254(self.clock, lambda level: self.edges.append((self.cycle, level)))
        self.bus = PortBus()
        self.bus.attach(self.pit, self.pit.ports)

    def run_to(self, cycle: int) -> None:
        """Let time pass as a machine does: from event to event."""
        while (when := self.clock.next_event()) is not None and when <= cycle:
            self.cycle = max(self.cycle, when)
            self.clock.run_due()
        self.cycle = cycle

    def run_ticks(self, ticks: int) -> None:
        self.run_to(self.cycle + ticks * TICK)

    def programme(self, counter: int, mode: int, bcd: bool = False, access: int = 3) -> None:
        self.bus.write(0x43, 1, counter << 6 | access << 4 | mode << 1 | bcd)

    def write_count(self, counter: int, count: int) -> None:
        self.bus.write(0x40 + counter, 1, count & 0xFF)
        self.bus.write(0x40 + counter, 1, count >> 8)

    def read_count(self, counter: int) -> int:
        self.bus.write(0x43, 1, counter << 6)
        low = self.bus.read(0x40 + counter, 1)
        return low | self.bus.read(0x40 + counter, 1) << 8

    def out2(self) -> bool:
        return bool(self.bus.read(0x61, 1) & 0x20)

    @property
    def rises(self) -> list[int]:
        return [cycle for cycle, level in self.edges if level]


class Model:
    """One counter, told of every single clock pulse, after the data sheet's mode definitions."""

    def __init__(self, mode: int, modulus: int, gate: bool) -> None:
        self.mode, self.modulus, self.gate = mode, modulus, gate
        self.out = mode != 0
        self.register: int | None = None
        self.element: int | None = None
        self.null = True
        self.load_at_next = False
        self.live = False  # the count still has its end before it
        self.odd = False

    def write(self, count: int) -> None:
        self.register = count or self.modulus
        self.null = True
        if self.mode in (0, 4) or (self.mode in (2, 3) and self.element is None):
            self.load_at_next = True
        if self.mode == 0:
            self.out = False

    def set_gate(self, level: bool) -> None:
        if level and not self.gate and self.mode in (1, 2, 3, 5) and self.register is not None:
            self.load_at_next = True
        if not level and self.mode in (2, 3):
            self.out = True
        self.gate = level

    def take_register(self) -> None:
        assert self.register is not None
        self.element = self.register
        self.null = False
        if self.mode == 3:
            self.odd = bool(self.element % 2)
            self.element -= self.odd

    def pulse(self) -> None:
        if self.mode in (4, 5):
            self.out = True  # a strobe lasts one pulse
        if self.load_at_next:
            self.load_at_next = False
            self.live = True
            self.take_register()
            if self.mode == 1:
                self.out = False
            return
        if self.element is None or (not self.gate and self.mode not in (1, 5)):
            return
        if self.mode == 2:
            if self.element == 1:
                self.take_register()
                self.out = True
            else:
                self.element -= 1
                self.out = self.element != 1
        elif self.mode == 3:
            if self.element == 0 or (self.element == 2 and not (self.odd and self.out)):
                self.take_register()
                self.out = not self.out
            else:
                self.element -= 2
        else:
            self.element = (self.element - 1) % self.modulus
            if self.element == 0 and self.live:
                self.live = False
                self.out = self.mode in (0, 1)

    def shown(self) -> int:
        assert self.element is not None
        value = self.element % self.modulus
        return int(str(value), 16) if self.modulus == 10_000 else value


def in_bcd(value: int) -> int:
    return int(str(value), 16)


COUNT = st.one_of(st.integers(2, 9), st.integers(2, 9), st.integers(0, 300).filter(lambda count: count != 1))
STEP = st.one_of(
    st.tuples(st.just("pulses"), st.one_of(st.integers(0, 12), st.integers(0, 700))),
    st.tuples(st.just("pulses"), st.integers(0, 12)),
    st.tuples(st.just("gate"), st.integers(0, 1)),
    st.tuples(st.just("write"), COUNT),
)


@pytest.mark.parametrize("mode", range(6))
@given(bcd=st.booleans(), gate=st.booleans(), first=COUNT, steps=st.lists(STEP, max_size=25), phase=st.integers(0, 99))
def test_every_mode_counts_as_the_model(
    mode: int, bcd: bool, gate: bool, first: int, steps: list[tuple[str, int]], phase: int
) -> None:
    bench = Bench()
    bench.cycle = phase  # accesses needn't fall on a tick
    bench.bus.write(0x61, 1, int(gate))
    bench.programme(2, mode, bcd)
    model = Model(mode, 10_000 if bcd else 0x10000, gate)
    for name, argument in [("write", first), *steps]:
        match name:
            case "write":
                bench.write_count(2, in_bcd(argument) if bcd else argument)
                model.write(argument)
            case "gate":
                bench.bus.write(0x61, 1, argument)
                model.set_gate(bool(argument))
            case "pulses":
                bench.run_ticks(argument)
                for _ in range(argument):
                    model.pulse()
        assert bench.out2() == model.out
        if model.element is not None:
            assert bench.read_count(2) == model.shown()
        bench.bus.write(0x43, 1, 0xE8)
        status = bench.bus.read(0x42, 1)
        assert status == model.out << 7 | (model.null or model.load_at_next) << 6 | 0x30 | mode << 1 | bcd


@pytest.mark.parametrize("mode", [0, 2, 3, 4])
@given(
    counts=st.lists(st.tuples(COUNT, st.integers(0, 400)), min_size=1, max_size=5),
    start=st.integers(0, 50 * TICK),
    lazy=st.booleans(),
)
def test_interrupt_line_0_has_every_edge_at_its_cycle(
    mode: int, counts: list[tuple[int, int]], start: int, lazy: bool
) -> None:
    bench = Bench()
    bench.cycle = start
    bench.programme(0, mode)
    model = Model(mode, 0x10000, True)
    expected = [(start, False)] if mode == 0 else []
    level = mode != 0

    def note(cycle: int) -> None:
        nonlocal level
        if model.out != level:
            level = model.out
            expected.append((cycle, level))

    for count, pulses in counts:
        bench.write_count(0, count)
        model.write(count)
        note(bench.cycle)
        for _ in range(pulses):
            model.pulse()
            tick = bench.cycle // TICK + 1
            if lazy:
                bench.cycle += TICK
            else:
                bench.run_ticks(1)
            note(tick * TICK)
        if lazy:
            bench.clock.run_due()
    # Whether it is served at each event or late: every rise counts; in time, each edge is exact, too.
    assert bench.pit.raised == sum(is_high for _, is_high in expected)
    if not lazy:
        assert bench.edges == expected


def test_the_bioses_rate_does_not_drift() -> None:
    bench = Bench()
    bench.cycle = 123 * TICK + 45
    bench.programme(0, 2)
    bench.write_count(0, 0)
    bench.run_to(1000 * 65536 * TICK)
    first = (123 + 1 + 65536) * TICK
    assert bench.rises == [first + number * 65536 * TICK for number in range(999)]
    assert bench.pit.raised == 999


def test_late_service_keeps_the_phase() -> None:
    bench = Bench()
    bench.programme(0, 3)
    bench.write_count(0, 1000)
    bench.cycle = (1 + 10 * 1000 + 700) * TICK
    bench.clock.run_due()
    assert bench.pit.raised == 10
    assert bench.clock.next_event() == (1 + 11 * 1000) * TICK
    bench.run_to((1 + 11 * 1000) * TICK)
    assert bench.edges[-1] == ((1 + 11 * 1000) * TICK, True)


def test_a_counter_nobody_served_for_an_age_costs_nothing() -> None:
    bench = Bench()
    bench.programme(0, 2)
    bench.write_count(0, 2)
    bench.cycle = (1 + 2 * 10**12) * TICK
    assert bench.clock.run_due() == 1
    assert bench.pit.raised == 10**12
    assert [level for _, level in bench.edges] == [False, True]  # yet the line shows an edge


@pytest.mark.parametrize("mode", [2, 3])
def test_the_forbidden_count_1_still_goes_on(mode: int) -> None:
    bench = Bench()
    bench.programme(0, mode)
    bench.write_count(0, 1)
    bench.run_ticks(100)
    assert bench.pit.raised == 49


def test_one_shot_of_counter_0() -> None:
    bench = Bench()
    bench.programme(0, 0)
    bench.write_count(0, 50)
    bench.run_ticks(50)
    assert bench.rises == []
    bench.run_ticks(1000)
    assert bench.edges == [(0, False), (51 * TICK, True)]
    assert bench.clock.next_event() is None


def test_nothing_happens_without_programming() -> None:
    bench = Bench()
    bench.run_ticks(10**6)
    assert bench.edges == []
    assert bench.pit.raised == 0


def test_reprogramming_cancels_the_old_edges() -> None:
    bench = Bench()
    bench.programme(0, 2)
    bench.write_count(0, 100)
    bench.run_ticks(10)
    bench.programme(0, 4)
    assert bench.clock.next_event() is None
    bench.run_ticks(1000)
    assert bench.edges == []


def test_the_first_of_two_bytes_stops_mode_0() -> None:
    bench = Bench()
    bench.programme(0, 0)
    bench.write_count(0, 10)
    bench.run_ticks(5)
    bench.bus.write(0x40, 1, 20)
    bench.run_ticks(100)
    assert bench.read_count(0) == 6
    assert bench.rises == []
    bench.bus.write(0x40, 1, 0)
    bench.run_ticks(21)
    assert bench.rises == [(5 + 100 + 21) * TICK]


@pytest.mark.parametrize(("access", "count"), [(1, 0x34), (2, 0x1200)])
def test_one_byte_access(access: int, count: int) -> None:
    bench = Bench()
    bench.programme(1, 2, access=access)
    bench.bus.write(0x41, 1, 0x34 if access == 1 else 0x12)
    bench.run_ticks(1)
    assert bench.pit.counters[1].value(1) == count
    shift = 8 * (access - 1)
    assert bench.bus.read(0x41, 1) == count >> shift
    bench.bus.write(0x43, 1, 0x40)
    bench.run_ticks(7)
    assert bench.bus.read(0x41, 1) == count >> shift
    assert bench.bus.read(0x41, 1) == (count - 7) >> shift & 0xFF


def test_latches_hold_until_read() -> None:
    bench = Bench()
    bench.programme(1, 2)
    bench.write_count(1, 0x5000)
    bench.run_ticks(1)
    bench.bus.write(0x43, 1, 0xC4)  # read-back of both, count and status
    bench.run_ticks(0x300)
    bench.bus.write(0x43, 1, 0xC4)
    bench.bus.write(0x43, 1, 0x40)
    assert [bench.bus.read(0x41, 1) for _ in range(5)] == [0xB4, 0x00, 0x50, 0x00, 0x4D]
    bench.bus.write(0x43, 1, 0x40)
    bench.programme(1, 2)  # forgets the latch
    bench.write_count(1, 0x1111)
    bench.run_ticks(1)
    assert [bench.bus.read(0x41, 1) for _ in range(2)] == [0x11, 0x11]
    assert bench.bus.read(0x43, 1) == 0xFF


def test_reading_and_writing_may_alternate() -> None:
    bench = Bench()
    bench.programme(1, 2)
    bench.write_count(1, 0x1234)
    bench.run_ticks(1)
    assert bench.bus.read(0x41, 1) == 0x34
    bench.bus.write(0x41, 1, 0x78)
    assert bench.bus.read(0x41, 1) == 0x12
    bench.bus.write(0x41, 1, 0x56)
    bench.run_ticks(0x1234)
    assert bench.read_count(1) == 0x5678


def test_reading_is_live_in_the_middle_of_a_run() -> None:
    bench = Bench()
    bench.programme(0, 2)
    bench.write_count(0, 1000)
    bench.cycle = (1 + 1500) * TICK  # no event has run yet
    assert bench.read_count(0) == 500
    assert bench.pit.raised == 1


def test_system_control_port() -> None:
    bench = Bench()
    bench.bus.write(0x61, 1, 0xFF)
    assert bench.bus.read(0x61, 1) & 0x0F == 0x0F
    bench.bus.write(0x61, 1, 0x02)
    assert bench.bus.read(0x61, 1) & 0x0F == 0x02
    levels = []
    for _ in range(4):
        levels.append(bench.bus.read(0x61, 1) >> 4 & 1)
        bench.run_ticks(18)
    assert levels == [0, 1, 0, 1]


@given(
    st.lists(
        st.tuples(st.sampled_from(Pit8254.ports), st.integers(0, 255), st.booleans(), st.integers(0, 50 * TICK)),
        max_size=60,
    )
)
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, bool, int]]) -> None:
    bench = Bench()
    for port, value, read, cycles in accesses:
        if read:
            assert 0 <= bench.bus.read(port, 1) <= 255
        else:
            bench.bus.write(port, 1, value)
        next_event = bench.clock.next_event()
        assert next_event is None or next_event > bench.cycle - TICK
        bench.run_to(bench.cycle + cycles)
