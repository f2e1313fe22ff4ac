"""The serial port, at its registers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.ports import PortBus
from hvproto.machine.uart import COM1, Uart16550A
from tests.support.kernels import booted

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7


class Bench:
    def __init__(self, base: int = COM1) -> None:
        self.base = base
        self.sent = bytearray()
        self.irq = False
        self.edges = 0
        self.uart = Uart16550A(self.sent.append, self._set_irq, base)
        self.bus = PortBus()
        self.bus.attach(self.uart, self.uart.ports)

    def _set_irq(self, level: bool) -> None:
        self.edges += level and not self.irq
        self.irq = level

    def __getitem__(self, register: int) -> int:
        return self.bus.read(self.base + register, 1)

    def __setitem__(self, register: int, value: int) -> None:
        self.bus.write(self.base + register, 1, value)

    def read_all(self) -> bytes:
        data = bytearray()
        while self[LSR] & 1:
            data.append(self[DATA])
        return bytes(data)


def test_sending_is_immediate() -> None:
    bench = Bench(0x2F8)
    assert bench[LSR] == 0x60
    for byte in b"text\xff":
        bench[DATA] = byte
    assert bench.sent == b"text\xff"
    assert bench[LSR] == 0x60


def test_plain_registers() -> None:
    bench = Bench()
    bench[SCR] = 0x5A
    bench[IER] = 0xFF
    bench[LCR] = 0x83
    bench[DATA], bench[IER] = 0x34, 0x12
    assert (bench[DATA], bench[IER]) == (0x34, 0x12)
    bench[LCR] = 0x03
    assert (bench[SCR], bench[IER], bench[LCR]) == (0x5A, 0x0F, 0x03)
    assert bench.sent == b""


@given(st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 40))), st.booleans())
def test_nothing_received_is_lost(steps: list[bytes | int], fifo: bool) -> None:
    bench = Bench()
    bench[FCR] = 0xC7 if fifo else 0
    sent, got = bytearray(), bytearray()
    for step in steps:
        if isinstance(step, bytes):
            bench.uart.receive(step)
            sent += step
        else:
            for _ in range(step):
                if bench[LSR] & 1:
                    got.append(bench[DATA])
    assert got + bench.read_all() == sent
    assert bench[DATA] == 0


def test_input_that_came_before_the_initialization_is_kept() -> None:
    bench = Bench()
    bench.uart.receive(b"early")
    bench[IER] = 0
    bench[FCR] = 0xC7
    assert bench.read_all() == b"early"


def test_clearing_the_fifo_drops_what_is_in_it() -> None:
    bench = Bench()
    bench[FCR] = 0x01
    bench.uart.receive(bytes(range(20)))
    assert bench[LSR] & 1
    bench[FCR] = 0x03
    assert bench.read_all() == bytes(range(16, 20))


@pytest.mark.parametrize(("code", "trigger"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_received_data_interrupt(code: int, trigger: int) -> None:
    bench = Bench()
    bench[FCR], bench[IER], bench[MCR] = code | 1, 1, 0x08
    assert (bench.irq, bench[IIR]) == (False, 0xC1)
    for count in range(1, 16):
        bench.uart.receive(b"x")
        assert bench.irq
        assert bench[IIR] == (0xC4 if count >= trigger else 0xCC)
    bench.read_all()
    assert (bench.irq, bench[IIR]) == (False, 0xC1)


@pytest.mark.parametrize("fifo", [0x00, 0x01, 0xC1])
def test_each_byte_read_makes_an_edge_for_the_next(fifo: int) -> None:
    bench = Bench()
    bench[FCR], bench[IER], bench[MCR] = fifo, 1, 0x08
    bench.uart.receive(b"abc")
    for edges, byte in enumerate(b"abc", 1):
        assert (bench.edges, bench.irq) == (edges, True)
        assert bench[DATA] == byte
    assert not bench.irq


@pytest.mark.parametrize(("fifo", "modem_control"), [(0x00, 0x00), (0x00, 0x08), (0x01, 0x08), (0xC1, 0x0B)])
def test_a_kernel_that_reads_one_byte_per_interrupt(engine: str, fifo: int, modem_control: int) -> None:
    machine = booted(
        engine,
        f"""
        GATE 0x24, byte, 0x8e00
        mov al, 0xef
        out 0x21, al
        mov dx, 0x3fa
        mov al, {fifo}
        out dx, al
        mov dx, 0x3fc
        mov al, {modem_control}
        out dx, al
        mov dx, 0x3f9
        mov al, 1
        out dx, al
again:  sti
        hlt
        cmp byte ptr [seen], '!'
        jne again
        mov al, 0
        out 0xf4, al
        jmp $
byte:   push eax
        push edx
        mov dx, 0x3f8
        in al, dx
        mov [seen], al
        out 0xe9, al
        mov al, 0x20
        out 0x20, al
        pop edx
        pop eax
        iretd
""",
    )
    machine.board.uart.receive(b"one after the other!")
    assert machine.run(10_000_000) == 1
    assert machine.debug_output == b"one after the other!"


def test_without_fifo_there_is_no_time_out() -> None:
    bench = Bench()
    bench[IER], bench[MCR] = 1, 0x08
    bench.uart.receive(b"ab")
    assert bench[IIR] == 0x04
    assert bench[DATA] == ord("a")
    assert bench[IIR] == 0x04
    assert bench[DATA] == ord("b")
    assert bench[IIR] == 0x01


def test_the_interrupt_needs_no_out2() -> None:
    bench = Bench()
    bench.uart.receive(b"x")
    assert not bench.irq
    bench[IER] = 1
    assert bench.irq
    bench[MCR] = 0x08
    assert (bench.edges, bench.irq) == (1, True)


def test_transmitter_interrupt() -> None:
    bench = Bench()
    bench[MCR] = 0x08
    bench[IER] = 2
    assert bench.edges == 1
    assert bench[IIR] == 0x02
    assert (bench.irq, bench[IIR]) == (False, 0x01)
    bench[DATA] = 1
    assert bench.edges == 2
    bench[DATA] = 2  # without reading the cause in between
    assert bench.edges == 3
    bench[IER] = 0
    assert not bench.irq
    bench[IER] = 2
    assert (bench.edges, bench.irq) == (4, True)


def test_the_most_urgent_cause_is_told_first() -> None:
    bench = Bench()
    bench[MCR] = 0x18
    bench[IER] = 0x0F
    bench[MCR] = 0x1A  # CTS changes
    bench[DATA] = 1
    bench[DATA] = 2  # overrun: no FIFO
    assert bench[IIR] == 0x06
    assert bench[LSR] == 0x63
    assert bench[IIR] == 0x04
    assert bench[DATA] == 2
    assert bench[IIR] == 0x02
    assert bench[IIR] == 0x00
    assert bench[MSR] & 0x0F == 0x03  # DSR changed when loopback was entered
    assert (bench[IIR], bench.irq) == (0x01, False)


def test_loopback() -> None:
    bench = Bench()
    bench.uart.receive(b"from outside")
    bench[FCR] = 0x01
    bench[MCR] = 0x10
    bench[MSR]
    for byte in range(20):
        bench[DATA] = byte
    assert bench.sent == b""
    assert bench[LSR] & 2
    assert bench.read_all() == bytes(range(16))
    bench[MCR] = 0
    assert bench.read_all() == b"from outside"


@pytest.mark.parametrize(("output", "line"), [(0x02, 0x10), (0x01, 0x20), (0x04, 0x40), (0x08, 0x80)])
def test_looped_modem_lines(output: int, line: int) -> None:
    bench = Bench()
    assert bench[MSR] == 0xB0
    bench[MCR] = 0x10
    bench[MSR]
    bench[MCR] = 0x10 | output
    rings = line == 0x40
    assert bench[MSR] == line | (0 if rings else line >> 4)
    assert bench[MSR] == line
    bench[MCR] = 0x10
    assert bench[MSR] == line >> 4
    assert bench[MSR] == 0


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255), st.sampled_from(["read", "write", "receive"]))))
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, str]]) -> None:
    bench = Bench()
    for register, value, name in accesses:
        match name:
            case "read":
                assert 0 <= bench[register] <= 255
            case "write":
                bench[register] = value
            case "receive":
                bench.uart.receive(bytes([value]))
