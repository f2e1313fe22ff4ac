"""The A20 gate and port 0x92, at the port."""

from hvproto.machine.a20 import A20Gate, SystemControlPortA
from hvproto.machine.clock import Clock
from hvproto.machine.keyboard import KeyboardController
from hvproto.machine.ports import PortBus


class Bench:
    def __init__(self) -> None:
        self.changes: list[bool] = []
        self.resets = 0
        self.gate = A20Gate(self.changes.append)
        self.bus = PortBus()
        fast = SystemControlPortA(self.gate, self._reset)
        keyboard = KeyboardController(Clock(lambda: 0), lambda level: None, self.gate, self._reset)
        self.bus.attach(fast, fast.ports)
        self.bus.attach(keyboard, keyboard.ports)

    def _reset(self) -> None:
        self.resets += 1


def test_the_fast_gate() -> None:
    bench = Bench()
    assert bench.bus.read(0x92, 1) == 0x02
    bench.bus.write(0x92, 1, 0x00)
    bench.bus.write(0x92, 1, 0x00)
    assert (bench.gate.enabled, bench.bus.read(0x92, 1)) == (False, 0x00)
    bench.bus.write(0x92, 1, 0x0A)
    assert bench.bus.read(0x92, 1) == 0x0A
    assert bench.changes == [False, True]


def test_both_switches_move_the_same_gate() -> None:
    bench = Bench()
    bench.bus.write(0x64, 1, 0xD1)
    bench.bus.write(0x60, 1, 0xDD)
    assert bench.bus.read(0x92, 1) == 0x00
    bench.bus.write(0x92, 1, 0x02)
    bench.bus.write(0x64, 1, 0xD0)
    assert bench.bus.read(0x60, 1) & 0x03 == 0x03
    bench.bus.write(0x64, 1, 0xDD)
    assert not bench.gate.enabled
    bench.bus.write(0x64, 1, 0xDF)
    assert bench.changes == [False, True, False, True]
    assert bench.resets == 0


def test_the_fast_reset_happens_at_each_rise() -> None:
    bench = Bench()
    bench.bus.write(0x92, 1, 0x03)
    assert bench.resets == 1
    assert bench.bus.read(0x92, 1) == 0x02
    bench.bus.write(0x92, 1, 0x02)
    bench.bus.write(0x92, 1, 0x03)
    assert bench.resets == 2
    assert bench.changes == []
