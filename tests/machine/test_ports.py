"""The bus: who answers, how wide accesses are split, and what nobody answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.errors import MachineError
from hvproto.machine.debug import DebugConsole, DebugExit
from hvproto.machine.ports import PortBus


class Bytes:
    """A byte-wide device that remembers what was written where."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []

    def read_port(self, port: int, size: int) -> int:
        return port & 0xFF

    def write_port(self, port: int, size: int, value: int) -> None:
        self.written.append((port, size, value))


class Wide(Bytes):
    wide_ports = frozenset({0x100})


def test_a_port_has_one_owner() -> None:
    bus = PortBus()
    bus.attach(Bytes(), [1, 2])
    with pytest.raises(MachineError, match="0x2 belongs to Bytes"):
        bus.attach(Wide(), [3, 2])
    assert not bus.claimed(3)
    with pytest.raises(MachineError, match="no port 0x10000"):
        bus.attach(Bytes(), [0x10000])


def test_no_access_of_three_bytes() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        PortBus().read(0, 3)
    with pytest.raises(ValueError, match="3 bytes"):
        PortBus().write(0, 3, 0)


def test_wide_accesses_to_byte_ports_are_split() -> None:
    bus, device = PortBus(), Bytes()
    bus.attach(device, range(0x40, 0x44))
    assert bus.read(0x40, 4) == 0x43424140
    assert bus.read(0x41, 2) == 0x4241
    bus.write(0x40, 2, 0xFFFF1234)
    assert device.written == [(0x40, 1, 0x34), (0x41, 1, 0x12)]
    assert bus.unclaimed == {}


def test_wide_accesses_beyond_the_device() -> None:
    bus = PortBus()
    bus.attach(Bytes(), [0x40])
    assert bus.read(0x3F, 4) == 0xFFFF40FF
    assert bus.unclaimed == {("read", 0x3F): 1, ("read", 0x41): 1, ("read", 0x42): 1}


def test_wide_ports_take_accesses_whole() -> None:
    bus, device = PortBus(), Wide()
    bus.attach(device, range(0x100, 0x108))
    bus.write(0x100, 4, 0xDDCCBBAA)
    bus.write(0x100, 1, 0x1FF)
    bus.write(0x104, 2, 0x1234)
    assert device.written == [(0x100, 4, 0xDDCCBBAA), (0x100, 1, 0xFF), (0x104, 1, 0x34), (0x105, 1, 0x12)]


@given(st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
def test_nobody_answers_with_ones_and_is_counted(port: int, size: int, value: int) -> None:
    bus = PortBus()
    assert bus.read(port, size) == bus.read(port, size) == 2 ** (8 * size) - 1
    bus.write(port, size, value)
    assert bus.unclaimed == {("read", port): 2, ("write", port): 1}


def test_the_last_port_is_followed_by_the_first() -> None:
    bus = PortBus()
    bus.attach(Bytes(), [0xFFFF, 0x0000])
    assert bus.read(0xFFFF, 2) == 0x00FF


def test_debug_ports() -> None:
    bus, shown, ended = PortBus(), bytearray(), list[int]()
    console, end = DebugConsole(shown.append), DebugExit(ended.append)
    bus.attach(console, console.ports)
    bus.attach(end, end.ports)
    for byte in b"hello":
        bus.write(0xE9, 1, byte)
    assert bus.read(0xE9, 1) == 0xE9
    assert shown == b"hello"
    bus.write(0xF4, 4, 0x12345678)
    bus.write(0xF5, 1, 3)
    assert ended == [0x12345678, 3]
    assert bus.read(0xF4, 4) == 0
