"""The I/O APIC through its two words, in front of a local APIC."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.clock import Clock
from hvproto.machine.ioapic import IoApic
from hvproto.machine.lapic import LocalApic

EOI, SVR, LDR = 0xB0, 0xF0, 0xD0
MASKED, LEVEL, REMOTE_IRR = 0x10000, 0x8000, 0x4000


class Bench:
    def __init__(self) -> None:
        self.nmis = 0
        self.ext_int_changes = 0
        clock = Clock(lambda: 0)
        self.lapic = LocalApic(clock, on_nmi=self.on_nmi, on_eoi=lambda vector: self.ioapic.end_of_interrupt(vector))
        self.ioapic = IoApic(self.lapic, self.on_ext_int)
        self.lapic.write_mmio(SVR, 4, 0x1FF)
        self.lines = [self.ioapic.line(number) for number in range(24)]

    def on_nmi(self) -> None:
        self.nmis += 1

    def on_ext_int(self) -> None:
        self.ext_int_changes += 1

    def read(self, register: int) -> int:
        self.ioapic.write_mmio(0, 4, register)
        return self.ioapic.read_mmio(0x10, 4)

    def write(self, register: int, value: int) -> None:
        self.ioapic.write_mmio(0, 4, register)
        self.ioapic.write_mmio(0x10, 4, value)

    def programme(self, number: int, low: int, destination: int = 0) -> None:
        self.write(0x11 + 2 * number, destination << 24)
        self.write(0x10 + 2 * number, low)

    def take(self) -> int | None:
        return None if self.lapic.pending() is None else self.lapic.acknowledge()

    def end(self) -> None:
        self.lapic.write_mmio(EOI, 4, 0)


def test_after_reset_everything_is_masked() -> None:
    bench = Bench()
    assert (bench.read(0), bench.read(1), bench.read(2)) == (0x0100_0000, 0x0017_0011, 0x0100_0000)
    assert [bench.read(register) for register in range(0x10, 0x40)] == [MASKED, 0] * 24
    for line in bench.lines:
        line(True)
    assert bench.take() is None
    assert bench.read(0x40) == bench.read(3) == 0


def test_registers_have_the_writable_bits_of_the_data_sheet() -> None:
    bench = Bench()
    for register in (0, 1, 2, 0x10, 0x11, 0x3E, 0x3F, 0x40, 0xFF):
        bench.write(register, 0xFFFF_FFFF)
    assert (bench.read(0), bench.read(1), bench.read(2)) == (0x0F00_0000, 0x0017_0011, 0x0F00_0000)
    assert (bench.read(0x10), bench.read(0x11)) == (0x1AFFF, 0xFF00_0000)
    assert (bench.read(0x3E), bench.read(0x3F)) == (0x1AFFF, 0xFF00_0000)
    assert bench.ioapic.read_mmio(0, 4) == 0x3F
    assert bench.ioapic.read_mmio(0x13, 1) == bench.ioapic.read_mmio(0x20, 4) == 0
    bench.ioapic.write_mmio(0, 1, 0x110)
    assert bench.ioapic.read_mmio(0, 1) == 0x10
    bench.ioapic.write_mmio(0x10, 2, 0)
    assert bench.ioapic.read_mmio(0x10, 2) == 0xAFFF


def test_there_are_24_lines() -> None:
    for number in (-1, 24):
        with pytest.raises(ValueError, match="no input"):
            Bench().ioapic.line(number)


def test_edges() -> None:
    bench = Bench()
    bench.programme(4, 0x34)
    bench.lines[4](True)
    bench.lines[4](True)
    assert bench.read(0x18) == 0x34  # no remote IRR
    assert bench.take() == 0x34
    bench.end()
    assert bench.take() is None
    bench.lines[4](False)
    bench.programme(4, MASKED | 0x34)
    bench.lines[4](True)
    bench.programme(4, 0x34)
    assert bench.take() is None  # it came while masked, and is lost
    bench.lines[4](False)
    bench.lines[4](True)
    assert bench.take() == 0x34


def test_levels_wait_for_the_end_of_their_service() -> None:
    bench = Bench()
    bench.programme(9, LEVEL | 0x2000 | 0x39)
    bench.lines[9](True)
    assert bench.read(0x22) == 0xE039
    assert bench.take() == 0x39
    bench.lines[9](False)
    bench.lines[9](True)
    assert bench.take() is None
    bench.end()
    assert bench.take() == 0x39  # still asserted
    bench.lines[9](False)
    assert bench.read(0x22) == 0xE039
    bench.end()
    assert bench.read(0x22) == 0xA039
    assert bench.take() is None


def test_a_level_is_seen_when_it_is_unmasked() -> None:
    bench = Bench()
    bench.programme(9, MASKED | LEVEL | 0x39)
    bench.lines[9](True)
    assert bench.take() is None
    bench.programme(9, LEVEL | 0x39)
    assert bench.take() == 0x39


def test_becoming_edge_triggered_clears_the_remote_irr() -> None:
    bench = Bench()
    bench.programme(9, LEVEL | 0x39)
    bench.lines[9](True)
    bench.programme(9, MASKED | 0x39)
    bench.programme(9, MASKED | LEVEL | 0x39)
    assert bench.read(0x22) == MASKED | LEVEL | 0x39


def test_a_level_that_is_refused_has_no_remote_irr() -> None:
    bench = Bench()
    bench.lapic.write_mmio(SVR, 4, 0xFF)
    bench.programme(9, LEVEL | 0x39)
    bench.lines[9](True)
    assert bench.read(0x22) == LEVEL | 0x39


@pytest.mark.parametrize(
    ("low", "destination", "arrives"),
    [(0x40, 0, True), (0x40, 7, False), (0x40, 0xFF, True), (0x840, 4, True), (0x840, 3, False), (0x940, 0xFF, True)],
)
def test_destinations(low: int, destination: int, arrives: bool) -> None:
    bench = Bench()
    bench.lapic.write_mmio(LDR, 4, 0x0400_0000)
    for trigger in (0, LEVEL):
        bench.programme(3, low | trigger, destination)
        bench.lines[3](True)
        assert bench.take() == (0x40 if arrives else None)
        bench.lines[3](False)
        bench.end()


def test_nmi_and_ext_int() -> None:
    bench = Bench()
    bench.programme(5, 0x400)
    bench.lines[5](True)
    bench.lines[5](True)
    assert bench.nmis == 1
    assert not bench.ioapic.ext_int
    bench.programme(0, 0x700)
    bench.lines[0](True)
    assert bench.ioapic.ext_int
    assert bench.take() is None
    before = bench.ext_int_changes
    bench.programme(0, MASKED | 0x700)
    assert not bench.ioapic.ext_int
    assert bench.ext_int_changes > before
    bench.programme(0, 0x700, 3)
    assert not bench.ioapic.ext_int
    for mode in (0x200, 0x500):  # SMI, INIT
        bench.programme(6, mode)
        bench.lines[6](True)
        bench.lines[6](False)
    assert (bench.take(), bench.nmis) == (None, 1)


@given(st.lists(st.tuples(st.integers(0, 23), st.integers(0, 2**17 - 1), st.integers(0, 3)), max_size=60))
def test_a_level_is_never_lost(operations: list[tuple[int, int, int]]) -> None:
    """Whatever is done to lines and entries: an unmasked level that is asserted has been sent."""
    bench = Bench()
    asserted = set[int]()
    for number, low, action in operations:
        if action == 0:
            bench.programme(number, low & ~0x700 | 0x10)
        elif action == 1:
            (asserted.discard if number in asserted else asserted.add)(number)
            bench.lines[number](number in asserted)
        elif action == 2:
            bench.take()
        else:
            bench.end()
        for entry in range(24):
            value = bench.read(0x10 + 2 * entry)
            waiting = value & (MASKED | LEVEL | 0x800) == LEVEL and entry in asserted
            assert not waiting or value & REMOTE_IRR
