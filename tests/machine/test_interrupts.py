"""The interrupt controllers together: the 8259s as ever, virtual wire, and the APICs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.clock import Clock
from hvproto.machine.interrupts import InterruptRouter
from hvproto.machine.pic import Pic8259Pair

TPR, EOI, SVR, LVT_TIMER, LVT_LINT0, INITIAL = 0x80, 0xB0, 0xF0, 0x320, 0x350, 0x380


def initialize(pic: Pic8259Pair) -> None:
    for base, vector, wiring in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
        pic.write_port(base, 1, 0x11)
        for value in (vector, wiring, 1):
            pic.write_port(base + 1, 1, value)


class Bench:
    def __init__(self) -> None:
        self.cycle = 0
        self.changes: list[bool] = []
        self.nmis = 0
        self.clock = Clock(lambda: self.cycle)
        self.router = InterruptRouter(self.clock, lambda: self.changes.append(self.router.pending), self.on_nmi)
        initialize(self.router.pic)

    def on_nmi(self) -> None:
        self.nmis += 1

    def lapic(self, register: int, value: int) -> None:
        self.router.lapic.write_mmio(register, 4, value)

    def redirect(self, number: int, low: int) -> None:
        self.router.ioapic.write_mmio(0, 4, 0x10 + 2 * number)
        self.router.ioapic.write_mmio(0x10, 4, low)

    def pulse(self, number: int) -> None:
        self.router.line(number)(False)
        self.router.line(number)(True)


def test_no_line_is_the_cascade() -> None:
    for number in (-1, 2, 16):
        with pytest.raises(ValueError, match="no device can have"):
            Bench().router.line(number)


def test_disabled_the_8259s_are_the_processors() -> None:
    bench = Bench()
    bench.pulse(4)
    assert bench.changes == [True]
    assert bench.router.acknowledge() == 0x24
    assert bench.changes == [True, False]
    assert bench.router.acknowledge() == 0x27  # spurious, theirs


def test_enabled_the_8259s_come_through_lint0_only() -> None:
    bench = Bench()
    bench.pulse(4)
    bench.lapic(SVR, 0x1EF)
    assert not bench.router.pending
    assert bench.router.acknowledge() == 0xEF  # spurious, the local APIC's
    bench.lapic(LVT_LINT0, 0x700)
    assert bench.changes == [True, False, True]
    assert bench.router.acknowledge() == 0x24
    assert not bench.router.pending
    bench.pulse(1)
    bench.lapic(TPR, 0xFF)  # has no say
    assert bench.router.pending
    bench.lapic(LVT_LINT0, 0x10700)
    assert not bench.router.pending
    bench.lapic(SVR, 0xFF)
    assert bench.router.acknowledge() == 0x21


def test_the_8259s_through_input_0_of_the_ioapic() -> None:
    bench = Bench()
    bench.lapic(SVR, 0x1FF)
    bench.redirect(0, 0x700)
    bench.pulse(4)
    assert bench.router.pending
    assert bench.router.acknowledge() == 0x24
    bench.redirect(0, 0x10700)
    bench.pulse(3)
    assert not bench.router.pending


def test_lines_lead_to_the_ioapic_and_line_0_to_input_2() -> None:
    bench = Bench()
    bench.lapic(SVR, 0x1FF)
    for number in range(24):
        bench.redirect(number, 0x40 + number)
    for irq in (0, 1, *range(3, 16)):
        bench.pulse(irq)
        vectors = set()
        while bench.router.pending:
            vectors.add(bench.router.acknowledge())
            bench.lapic(EOI, 0)
        # Input 0 is the 8259s' output, which the first line has raised for good: nobody acknowledges them.
        assert vectors == {0x40 + (irq or 2)} | ({0x40} if irq == 0 else set())
    bench.router.ioapic.line(20)(True)
    assert bench.router.acknowledge() == 0x54


def test_the_8259s_go_before_the_local_apic() -> None:
    bench = Bench()
    bench.lapic(SVR, 0x1FF)
    bench.lapic(LVT_LINT0, 0x700)
    bench.redirect(10, 0x4A)
    bench.pulse(10)
    assert [bench.router.acknowledge(), bench.router.acknowledge()] == [0x2A, 0x4A]


def test_level_triggered_lines_ask_again() -> None:
    bench = Bench()
    bench.lapic(SVR, 0x1FF)
    bench.redirect(9, 0x8059)
    line = bench.router.line(9)
    line(True)
    for _ in range(3):
        assert bench.router.acknowledge() == 0x59
        assert not bench.router.pending
        bench.lapic(EOI, 0)
    line(False)
    assert bench.router.acknowledge() == 0x59
    bench.lapic(EOI, 0)
    assert not bench.router.pending


def test_the_timer_of_the_local_apic() -> None:
    bench = Bench()
    bench.lapic(SVR, 0x1FF)
    bench.lapic(LVT_TIMER, 0x30)
    bench.lapic(INITIAL, 100)
    assert bench.clock.next_event() == 200
    bench.cycle = 200
    bench.clock.run_due()
    assert bench.router.acknowledge() == 0x30


def test_nmi_by_lint0() -> None:
    bench = Bench()
    bench.lapic(SVR, 0x1FF)
    bench.lapic(LVT_LINT0, 0x400)
    bench.pulse(0)
    assert bench.nmis == 1
    assert not bench.router.pending


LINES = st.sampled_from([0, 1, *range(3, 16)])
OPERATION = st.one_of(
    st.tuples(st.just("line"), LINES, st.integers(0, 1)),
    st.tuples(st.just("write"), st.sampled_from(Pic8259Pair.ports), st.integers(0, 255)),
    st.tuples(st.just("end"), st.sampled_from([0x20, 0xA0]), st.just(0x20)),
    st.tuples(st.just("read"), st.sampled_from(Pic8259Pair.ports), st.just(0)),
    st.tuples(st.just("take"), st.just(0), st.just(0)),
)


@given(st.lists(OPERATION, max_size=80))
def test_without_apics_it_is_the_pair_of_8259s(operations: list[tuple[str, int, int]]) -> None:
    bench = Bench()
    changes: list[bool] = []
    pair = Pic8259Pair(lambda: changes.append(pair.pending))
    initialize(pair)
    for name, place, value in operations:
        match name:
            case "line":
                pair.line(place)(bool(value))
                bench.router.line(place)(bool(value))
            case "write" | "end":
                pair.write_port(place, 1, value)
                bench.router.pic.write_port(place, 1, value)
            case "read":
                assert bench.router.pic.read_port(place, 1) == pair.read_port(place, 1)
            case "take":
                assert bench.router.acknowledge() == pair.acknowledge()
        assert bench.router.pending == pair.pending
        assert bench.changes == changes
