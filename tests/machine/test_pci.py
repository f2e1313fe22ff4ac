"""PCI configuration space at its ports: how it is addressed, what is there, and which bits can be changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.pci import Field, PciBus, PciFunction
from hvproto.machine.pci_functions import standard_functions
from hvproto.machine.ports import PortBus
from hvproto.machine.power import ResetControl

ADDRESS, DATA = 0xCF8, 0xCFC


class Bench:
    def __init__(self) -> None:
        self.bus = PortBus()
        self.pci = PciBus(standard_functions())
        self.bus.attach(self.pci, self.pci.ports)

    def select(self, device: int, function: int, register: int) -> int:
        self.bus.write(ADDRESS, 4, 1 << 31 | device << 11 | function << 8 | register & 0xFC)
        return DATA + (register & 3)

    def read(self, device: int, function: int, register: int, size: int) -> int:
        return self.bus.read(self.select(device, function, register), size)

    def write(self, device: int, function: int, register: int, size: int, value: int) -> None:
        self.bus.write(self.select(device, function, register), size, value)


def test_the_address_port_takes_dwords() -> None:
    bench = Bench()
    bench.bus.write(ADDRESS, 4, 0xFFFF_FFFF)
    assert bench.bus.read(ADDRESS, 4) == 0x80FF_FFFC
    bench.bus.write(ADDRESS, 1, 0)
    bench.bus.write(ADDRESS, 2, 0)
    bench.bus.write(ADDRESS + 3, 1, 1)
    assert bench.bus.read(ADDRESS, 4) == 0x80FF_FFFC
    assert bench.bus.read(ADDRESS, 1) == 0xFF
    assert bench.bus.read(ADDRESS, 2) == 0xFFFF
    bench.bus.write(ADDRESS, 4, 0x8000_0000)  # by which kernels recognize mechanism #1
    assert bench.bus.read(ADDRESS, 4) == 0x8000_0000


def test_the_reset_control_register_fits_in_between() -> None:
    bench = Bench()
    resets: list[bool] = []
    reset = ResetControl(resets.append)
    bench.bus.attach(reset, reset.ports)
    bench.bus.write(0xCF9, 1, 6)
    assert resets == [True]
    bench.bus.write(ADDRESS, 4, 0x8000_0600)
    assert resets == [True]


def test_nothing_answers_unless_enabled_and_present() -> None:
    bench = Bench()
    for address in (0x0000_0000, 0x8001_0000, 0x8000_1000, 0x8000_0100, 0x8000_0A00, 0x80FF_FF00):
        bench.bus.write(ADDRESS, 4, address)
        bench.bus.write(DATA, 4, 0)
        assert [bench.bus.read(DATA, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFF_FFFF]


def test_who_is_there() -> None:
    bench = Bench()
    found = {
        (device, function): (bench.read(device, function, 0, 4), bench.read(device, function, 8, 4) >> 8)
        for device in range(32)
        for function in range(8)
        if bench.read(device, function, 0, 2) != 0xFFFF
    }
    assert found == {
        (0, 0): (0x1237_8086, 0x060000),
        (1, 0): (0x7000_8086, 0x060100),
        (1, 1): (0x7010_8086, 0x010180),
        (1, 3): (0x7113_8086, 0x068000),
    }
    assert [bench.read(*place, 0x0E, 1) for place in found] == [0, 0x80, 0, 0]


def test_accesses_of_every_size() -> None:
    bench = Bench()
    assert [bench.read(0, 0, place, 1) for place in range(4)] == [0x86, 0x80, 0x37, 0x12]
    assert [bench.read(0, 0, place, 2) for place in range(4)] == [0x8086, 0x3780, 0x1237, 0xFF12]
    assert [bench.read(0, 0, place, 4) for place in range(4)] == [0x1237_8086, 0xFF12_3780, 0xFFFF_1237, 0xFFFF_FF12]
    bench.write(0, 0, 0x51, 1, 0x12)
    bench.write(0, 0, 0x53, 4, 0x3456_7891)  # three bytes of it are behind the dword
    assert bench.read(0, 0, 0x50, 4) == 0x9100_1200
    assert bench.read(0, 0, 0x54, 4) == 0x0100_0000
    bench.write(0, 0, 0x50, 4, 0xABCD_EF01)
    assert bench.read(0, 0, 0x50, 4) == 0xABCD_EF01


def test_what_the_firmware_has_left() -> None:
    bench = Bench()
    assert bench.read(1, 3, 0x40, 4) == 0xB001
    assert bench.read(1, 3, 0x80, 1) == 1
    assert bench.read(1, 3, 0x3C, 2) == 0x0109
    assert bench.read(1, 1, 0x40, 4) == 0x8000
    assert bench.read(1, 1, 0x04, 2) == 1
    assert [bench.read(1, 0, 0x60 + n, 1) for n in range(4)] == [0x80] * 4


@pytest.mark.parametrize(
    ("place", "register", "size", "ones"),
    [
        ((0, 0), 0x00, 4, 0x1237_8086),
        ((0, 0), 0x04, 2, 0x0146),
        ((0, 0), 0x08, 4, 0x0600_0002),
        ((0, 0), 0x59, 1, 0x77),
        ((0, 0), 0x72, 1, 0x7A),
        ((0, 0), 0x10, 4, 0),
        ((1, 0), 0x04, 2, 0x000F),
        ((1, 0), 0x63, 1, 0x8F),
        ((1, 1), 0x04, 2, 0x0005),
        ((1, 1), 0x20, 4, 0xFFF1),  # its size is 16 ports
        ((1, 1), 0x10, 4, 0),  # the old ports have no base register
        ((1, 3), 0x40, 4, 0xFFC1),
        ((1, 3), 0x90, 4, 0xFFF1),
        ((1, 3), 0x3C, 2, 0x01FF),
    ],
)
def test_writable_bits(place: tuple[int, int], register: int, size: int, ones: int) -> None:
    bench = Bench()
    bench.write(*place, register, size, (1 << 8 * size) - 1)
    assert bench.read(*place, register, size) == ones


def test_bits_that_ones_clear() -> None:
    function = PciFunction({6: Field(2, 0xF280, writable=0x0001, clearable=0x7000)})
    function.write(6, 2, 0x1001)
    assert function.read(6, 2) == 0xE281
    function.write(6, 2, 0xFFFF)
    assert function.read(6, 2) == 0x8281


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 7), st.integers(0, 2**32 - 1)), max_size=40))
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, int]]) -> None:
    bench = Bench()
    for size, offset, value in accesses:
        bench.bus.write(ADDRESS, 4, 0x8000_0000 | value & 0xBFC)
        bench.bus.write(ADDRESS + offset, size, value)
        assert 0 <= bench.bus.read(ADDRESS + offset, size) < 1 << 8 * size
    assert bench.read(0, 0, 0, 4) == 0x1237_8086
