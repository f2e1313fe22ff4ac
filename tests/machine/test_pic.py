"""The interrupt controllers, at their ports; priorities against a small model made of sets and a list."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.pic import Pic8259Pair
from hvproto.machine.ports import PortBus

MASTER, SLAVE = 0x20, 0xA0


class Bench:
    def __init__(self, icw4: int = 0x01, slave_icw4: int = 0x01) -> None:
        self.changes: list[bool] = []
        self.pic = Pic8259Pair(lambda: self.changes.append(self.pic.pending))
        self.bus = PortBus()
        self.bus.attach(self.pic, self.pic.ports)
        self.lines = {n: self.pic.line(n) for n in range(16) if n != 2}
        self.initialize(icw4, slave_icw4)

    def initialize(self, icw4: int = 0x01, slave_icw4: int = 0x01) -> None:
        for base, vector, wiring, last in ((MASTER, 0x20, 4, icw4), (SLAVE, 0x28, 2, slave_icw4)):
            self.bus.write(base, 1, 0x11)
            for value in (vector, wiring, last):
                self.bus.write(base + 1, 1, value)

    def raise_line(self, number: int) -> None:
        self.lines[number](True)

    def pulse(self, number: int) -> None:
        self.lines[number](False)
        self.lines[number](True)

    def registers(self, base: int = MASTER) -> tuple[int, int, int]:
        """IRR, ISR and IMR."""
        self.bus.write(base, 1, 0x0A)
        requests = self.bus.read(base, 1)
        self.bus.write(base, 1, 0x0B)
        return requests, self.bus.read(base, 1), self.bus.read(base + 1, 1)


def test_before_initialization_nothing_is_pending() -> None:
    pic = Pic8259Pair(None)
    pic.line(0)(True)
    assert not pic.pending
    assert pic.read_port(0x21, 1) == 0xFF
    # The line has to rise again after the initialization.
    bench = Bench()
    bench.raise_line(0)
    bench.initialize()
    assert not bench.pic.pending
    bench.pulse(0)
    assert bench.pic.pending


def test_the_initialization_sequence_is_not_ready_before_its_end() -> None:
    bench = Bench()
    bench.bus.write(MASTER, 1, 0x11)
    for value in (0x40, 4):
        bench.bus.write(MASTER + 1, 1, value)
        bench.pulse(1)
        assert not bench.pic.pending
    bench.bus.write(MASTER + 1, 1, 1)
    assert bench.pic.pending
    assert bench.pic.acknowledge() == 0x41


def test_single_chip_without_icw4_takes_icw2_only() -> None:
    bench = Bench()
    bench.bus.write(MASTER, 1, 0x12)
    bench.bus.write(MASTER + 1, 1, 0x30)
    bench.bus.write(MASTER + 1, 1, 0xFE)
    assert bench.registers() == (0, 0, 0xFE)
    bench.pulse(0)
    assert bench.pic.acknowledge() == 0x30


def test_no_device_has_the_cascade() -> None:
    for number in (-1, 2, 16):
        with pytest.raises(ValueError, match="no device can have"):
            Pic8259Pair().line(number)


def test_request_service_end() -> None:
    bench = Bench()
    bench.raise_line(4)
    assert bench.registers() == (0x10, 0, 0)
    assert bench.pic.acknowledge() == 0x24
    assert bench.registers() == (0, 0x10, 0)
    assert not bench.pic.pending
    bench.raise_line(4)
    assert bench.registers() == (0, 0x10, 0)  # no edge
    bench.pulse(4)
    assert not bench.pic.pending  # its own level is in service
    bench.raise_line(1)
    assert bench.pic.pending
    assert bench.pic.acknowledge() == 0x21
    bench.bus.write(MASTER, 1, 0x20)
    assert bench.registers() == (0x10, 0x10, 0)
    bench.bus.write(MASTER, 1, 0x64)
    assert bench.pic.acknowledge() == 0x24
    assert bench.changes == [True, False, True, False, True, False]


def test_the_mask_holds_requests_back() -> None:
    bench = Bench()
    bench.bus.write(MASTER + 1, 1, 0x10)
    bench.raise_line(4)
    assert not bench.pic.pending
    bench.bus.write(MASTER + 1, 1, 0)
    assert bench.pic.acknowledge() == 0x24


def test_the_slave_comes_through_the_cascade() -> None:
    bench = Bench()
    bench.raise_line(14)
    bench.raise_line(3)
    assert bench.pic.acknowledge() == 0x2E
    assert bench.registers() == (0x08, 0x04, 0)
    assert bench.registers(SLAVE) == (0, 0x40, 0)
    bench.raise_line(8)
    assert not bench.pic.pending  # more urgent, but the cascade is in service
    bench.bus.write(SLAVE, 1, 0x20)
    bench.bus.write(MASTER, 1, 0x20)
    assert bench.pic.acknowledge() == 0x28
    bench.bus.write(SLAVE, 1, 0x20)
    bench.bus.write(MASTER, 1, 0x62)
    assert bench.pic.acknowledge() == 0x23


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself() -> None:
    bench = Bench(icw4=0x11)
    bench.raise_line(14)
    assert bench.pic.acknowledge() == 0x2E
    bench.raise_line(3)
    bench.raise_line(15)
    assert not bench.pic.pending
    bench.raise_line(8)
    assert bench.pic.acknowledge() == 0x28


@pytest.mark.parametrize(("number", "vector"), [(0, 0x27), (7, 0x27), (8, 0x27)])
def test_a_withdrawn_request_is_spurious(number: int, vector: int) -> None:
    bench = Bench()
    bench.raise_line(number)
    bench.lines[number](False)
    assert not bench.pic.pending
    assert bench.pic.acknowledge() == vector
    assert bench.registers() == bench.registers(SLAVE) == (0, 0, 0)


def test_a_request_withdrawn_at_the_slave_only_is_spurious_there() -> None:
    bench = Bench()
    bench.raise_line(9)
    bench.pic.slave.set_line(1, False)  # between the two INTA pulses
    assert bench.pic.acknowledge() == 0x2F
    assert bench.registers() == (0, 0x04, 0)
    assert bench.registers(SLAVE) == (0, 0, 0)


def test_automatic_end_of_interrupt() -> None:
    bench = Bench(icw4=0x03, slave_icw4=0x03)
    for number in (5, 6, 9, 10):
        bench.raise_line(number)
    assert [bench.pic.acknowledge() for _ in range(4)] == [0x29, 0x2A, 0x25, 0x26]
    assert bench.registers() == (0, 0, 0)
    assert not bench.pic.pending


def test_automatic_rotation() -> None:
    bench = Bench(icw4=0x03)
    bench.bus.write(MASTER, 1, 0x80)
    bench.raise_line(3)
    assert bench.pic.acknowledge() == 0x23
    for number in (0, 3, 4):
        bench.pulse(number)
    assert [bench.pic.acknowledge() for _ in range(3)] == [0x24, 0x20, 0x23]
    bench.bus.write(MASTER, 1, 0x00)
    bench.pulse(4)
    bench.pulse(3)
    assert [bench.pic.acknowledge() for _ in range(2)] == [0x24, 0x23]


@pytest.mark.parametrize(
    ("command", "served", "next_order"),
    [
        (0x20, 0x08, [0, 1, 3, 4]),  # non-specific end of interrupt: level 1, priorities as before
        (0xA0, 0x08, [3, 4, 0, 1]),  # ... and level 1 becomes the least urgent
        (0x63, 0x02, [0, 1, 3, 4]),  # specific end of interrupt, of level 3
        (0xE3, 0x02, [4, 0, 1, 3]),  # ... and it becomes the least urgent
        (0xC3, 0x0A, [4, 0, 1, 3]),  # set priority alone
        (0x40, 0x0A, [0, 1, 3, 4]),  # no operation
    ],
)
def test_end_of_interrupt_commands(command: int, served: int, next_order: list[int]) -> None:
    bench = Bench()
    for level in (3, 1):
        bench.pulse(level)
        bench.pic.acknowledge()
    bench.bus.write(MASTER, 1, command)
    assert bench.registers() == (0, served, 0)
    for level in (1, 3):
        bench.bus.write(MASTER, 1, 0x60 | level)
    for level in next_order:
        bench.pulse(level)
    order = []
    while bench.pic.pending:
        order.append(bench.pic.acknowledge() - 0x20)
        bench.bus.write(MASTER, 1, 0x60 | order[-1])
    assert order == next_order


def test_poll_acknowledges() -> None:
    bench = Bench()
    bench.raise_line(6)
    bench.bus.write(MASTER, 1, 0x0C)
    assert bench.bus.read(MASTER, 1) == 0x86
    assert not bench.pic.pending
    assert bench.registers() == (0, 0x40, 0)
    bench.bus.write(MASTER, 1, 0x0C)
    assert bench.bus.read(MASTER, 1) == 0


def test_level_triggered_lines_ask_again() -> None:
    bench = Bench()
    bench.bus.write(0x4D0, 2, 0xFFFF)
    assert bench.bus.read(0x4D0, 2) == 0xDEF8
    bench.raise_line(11)
    assert bench.pic.acknowledge() == 0x2B
    bench.bus.write(SLAVE, 1, 0x20)
    bench.bus.write(MASTER, 1, 0x20)
    assert bench.pic.acknowledge() == 0x2B
    bench.lines[11](False)
    bench.bus.write(SLAVE, 1, 0x20)
    bench.bus.write(MASTER, 1, 0x20)
    assert not bench.pic.pending


@dataclass
class Model:
    """The master alone: who is asking, who is served, and everybody in the order of urgency."""

    order: list[int] = field(default_factory=lambda: list(range(8)))
    high: set[int] = field(default_factory=set)
    asking: set[int] = field(default_factory=set)
    served: set[int] = field(default_factory=set)
    masked: set[int] = field(default_factory=set)
    special: bool = False

    def next(self) -> int | None:
        wanted = sorted(self.asking - self.masked, key=self.order.index)
        in_the_way = self.served - (self.masked if self.special else set())
        if not wanted or any(self.order.index(other) <= self.order.index(wanted[0]) for other in in_the_way):
            return None
        return wanted[0]

    def set_line(self, level: int, high: bool) -> None:
        if high and level not in self.high:
            self.asking.add(level)
        if not high:
            self.asking.discard(level)
        (self.high.add if high else self.high.discard)(level)

    def end(self, rotate: bool) -> None:
        ending = sorted(self.served - (self.masked if self.special else set()), key=self.order.index)
        if ending:
            self.served.remove(ending[0])
            if rotate:
                self.lowest(ending[0])

    def lowest(self, level: int) -> None:
        while self.order[-1] != level:
            self.order.append(self.order.pop(0))


def bits(levels: set[int]) -> int:
    return sum(1 << level for level in levels)


LEVEL = st.sampled_from([0, 1, 3, 4, 5, 6, 7])
OPERATION = st.one_of(
    st.tuples(st.just("raise"), LEVEL),
    st.tuples(st.just("raise"), LEVEL),
    st.tuples(st.just("lower"), LEVEL),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("mask"), st.integers(0, 255)),
    st.tuples(st.just("special"), st.integers(0, 1)),
    st.tuples(st.just("command"), st.tuples(st.integers(0, 7), LEVEL).map(lambda pair: pair[0] << 5 | pair[1])),
)


@given(st.lists(OPERATION, max_size=60))
def test_priorities_are_the_models(operations: list[tuple[str, int]]) -> None:
    bench, model = Bench(), Model()
    for name, argument in operations:
        match name:
            case "raise" | "lower":
                bench.lines[argument](name == "raise")
                model.set_line(argument, name == "raise")
            case "mask":
                bench.bus.write(MASTER + 1, 1, argument)
                model.masked = {level for level in range(8) if argument >> level & 1}
            case "special":
                bench.bus.write(MASTER, 1, 0x48 | argument << 5)
                model.special = bool(argument)
            case "acknowledge":
                level = model.next()
                assert bench.pic.acknowledge() == 0x20 + (7 if level is None else level)
                if level is not None:
                    model.asking.remove(level)
                    model.served.add(level)
            case "command":
                bench.bus.write(MASTER, 1, argument)
                rotate, specific, end = argument >> 7 & 1, argument >> 6 & 1, argument >> 5 & 1
                if end and not specific:
                    model.end(bool(rotate))
                if end and specific:
                    model.served.discard(argument & 7)
                if specific and rotate:
                    model.lowest(argument & 7)
        assert bench.pic.pending == (model.next() is not None)
        assert bench.registers() == (bits(model.asking), bits(model.served), bits(model.masked))


@given(st.lists(st.tuples(st.sampled_from(["raise", "lower", "acknowledge", "end"]), st.integers(0, 15)), max_size=60))
def test_the_pair_serves_both_chips_in_one_order(operations: list[tuple[str, int]]) -> None:
    """With fixed priorities: 0, 1, then all of the slave, then 3 to 7; the slave waits for its own service to end."""
    bench = Bench()
    high, asking, served = set[int](), set[int](), list[int]()

    def rank(number: int) -> tuple[int, int]:
        return (2, number) if number >= 8 else (number, 0)

    for name, number in operations:
        candidates = sorted(asking, key=rank)
        best = candidates[0] if candidates else None
        if best is not None and any(rank(other)[0] <= rank(best)[0] for other in served):
            best = None
        assert bench.pic.pending == (best is not None)
        if name == "acknowledge":
            vector = bench.pic.acknowledge()
            if best is None:
                assert vector == 0x27
            else:
                assert vector == 0x20 + best
                asking.remove(best)
                served.append(best)
        elif name == "end":
            if served and served.pop() >= 8:
                bench.bus.write(SLAVE, 1, 0x20)
            bench.bus.write(MASTER, 1, 0x20)
        elif number != 2:
            bench.lines[number](name == "raise")
            if name == "raise" and number not in high:
                asking.add(number)
                high.add(number)
            elif name == "lower":
                asking.discard(number)
                high.discard(number)


@given(st.lists(st.tuples(st.sampled_from(Pic8259Pair.ports), st.integers(0, 255), st.booleans()), max_size=80))
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, bool]]) -> None:
    bench = Bench()
    for port, value, read in accesses:
        if read:
            assert 0 <= bench.bus.read(port, 1) <= 255
        else:
            bench.bus.write(port, 1, value)
        bench.pulse(value & 0x0D)
        if bench.pic.pending:
            assert 0 <= bench.pic.acknowledge() <= 255
