"""IN, OUT, INS and OUTS: what reaches the bus, and who may."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.processor.segments import PRESENT, Segment
from hvproto.processor.settings import EFLAGS_IOPL, Setting
from tests.support.bench import (
    BITMAP,
    CODE3,
    DATA,
    DATA0,
    KERNEL_STACK,
    SEGMENTS,
    TSS,
    TSS_LIMIT,
    TSS_SELECTOR,
    USER_STACK,
    Bench,
)
from tests.support.page_tables import LOW_TABLE, identity

ACCESSES = {
    "in al, dx": ("read", 1),
    "in ax, dx": ("read", 2),
    "in eax, dx": ("read", 4),
    "out dx, al": ("write", 1),
    "out dx, ax": ("write", 2),
    "out dx, eax": ("write", 4),
    "insb": ("read", 1),
    "insw": ("read", 2),
    "insd": ("read", 4),
    "outsb": ("write", 1),
    "outsw": ("write", 2),
    "outsd": ("write", 4),
}


class Bus:
    """Records every access; reads give a pattern."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int, int]] = []

    def read(self, port: int, size: int) -> int:
        self.log.append(("read", port, size, 0))
        return 0xA1B2C3D4 & ((1 << 8 * size) - 1)

    def write(self, port: int, size: int, value: int) -> None:
        self.log.append(("write", port, size, value))


def _bench(engine: str) -> tuple[Bench, Bus]:
    bench, bus = Bench(engine), Bus()
    bench.cpu.ports = bus
    return bench, bus


@pytest.mark.parametrize("text", ACCESSES)
@pytest.mark.parametrize("level", [0, 3])
def test_an_allowed_access(engine: str, text: str, level: int) -> None:
    kind, size = ACCESSES[text]
    bench, bus = _bench(engine)
    bench.store(DATA, 0x11223344, 0x99999999)
    arrived = bench.provoke(
        f"at: {text}\nint 0x40", level, eax=0x11223344, edx=0x1234, esi=DATA, edi=DATA + 4, eflags=2 | EFLAGS_IOPL
    )
    assert arrived.vector == 0x40
    mask = (1 << 8 * size) - 1
    assert bus.log == [(kind, 0x1234, size, 0x11223344 & mask if kind == "write" else 0)]
    if text.startswith("in "):
        assert bench.cpu.gpr(0) == 0x11223344 & ~mask | 0xA1B2C3D4 & mask
    if text.startswith("ins"):
        assert bench.load(DATA + 4) == (0x99999999 & ~mask | 0xA1B2C3D4 & mask,)
        assert bench.cpu.gpr(7) == DATA + 4 + size
    if text.startswith("outs"):
        assert bench.cpu.gpr(6) == DATA + size


@pytest.mark.parametrize("text", [*ACCESSES, "in al, 0x60", "out 0x60, eax", "rep insb", "rep outsd"])
@pytest.mark.parametrize("iopl", [0, 2])
def test_a_forbidden_access_is_a_gp_and_has_no_effect(engine: str, text: str, iopl: int) -> None:
    bench, bus = _bench(engine)
    bench.store(DATA, 1, 2, 3, 4)
    before = bytes(bench.view[DATA : DATA + 16])
    arrived = bench.provoke(
        f"nop\nat: {text}\nmov eax, 5\nmov [{DATA}], eax\ninc dword ptr [{DATA} + 4]\njmp away\naway: int 0x40", 3,
        eax=0x77, ecx=3, edx=0x1234, esi=DATA, edi=DATA + 12, eflags=2 | iopl << 12,
    )  # fmt: skip
    assert (arrived.vector, arrived.frame[:3]) == (13, (0, bench.symbol("at"), CODE3))
    assert arrived.frame[4] == USER_STACK
    assert bus.log == []
    registers = bench.cpu.registers()
    assert [registers[name] for name in ("eax", "ecx", "edx", "esi", "edi")] == [0x77, 3, 0x1234, DATA, DATA + 12]
    if "ins" not in text:  # the engine clears the place where INS will store, before anything else
        assert bytes(bench.view[DATA : DATA + 16]) == before
    assert bytes(bench.view[DATA : DATA + 12]) == before[:12]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(ACCESSES)), st.integers(0, 0xFFFF), st.integers(0, 15), st.integers(0, 0x68 + 0x2001),
    st.booleans(),
)  # fmt: skip
def test_the_bitmap_decides_at_ring_3(engine: str, text: str, port: int, clear: int, limit: int, full: bool) -> None:
    """Four bits around the port are as ``clear`` says; the TSS may end before the bitmap does."""
    kind, size = ACCESSES[text]
    bench, bus = _bench(engine)
    if full:
        limit = 0x68 + 0x2000
    bench.view[BITMAP : BITMAP + 0x2001] = b"\xff" * 0x2001
    open_ports = {port + i for i in range(4) if clear >> i & 1}
    for number in open_ports:
        bench.view[BITMAP + number // 8] &= ~(1 << number % 8)
    tss = Segment(TSS_SELECTOR, TSS, max(limit, 11), SEGMENTS[TSS_SELECTOR].attributes)
    bench.cpu.write_setting(Setting.TR, tss)
    allowed = (
        limit >= 0x67
        and 0x68 + port // 8 + 1 <= limit
        and all(port + i in open_ports and port + i <= 0x1_0007 for i in range(size))
    )
    arrived = bench.provoke(f"at: {text}\nint 0x40", 3, edx=port, esi=DATA, edi=DATA)
    if allowed:
        assert (arrived.vector, [entry[:3] for entry in bus.log]) == (0x40, [(kind, port, size)])
    else:
        assert (arrived.vector, arrived.frame[:2], bus.log) == (13, (0, bench.symbol("at")), [])


def test_a_repeated_input_takes_one_access_each(engine: str) -> None:
    bench, bus = _bench(engine)
    assert bench.provoke("rep insw\nint 0x40", 0, ecx=3, edx=0x1F0, edi=DATA).vector == 0x40
    assert bus.log == [("read", 0x1F0, 2, 0)] * 3
    assert bench.load(DATA, 2) == (0xC3D4C3D4, 0x0000C3D4)


def test_an_access_ends_nothing_by_itself(engine: str) -> None:
    bench, bus = _bench(engine)
    bench.go("mov edx, 0x80\nmov al, 1\nout dx, al\nmov al, 2\nout dx, al\nhlt")
    assert [entry[3] for entry in bus.log] == [1, 2]


def test_without_a_bus_reads_are_all_ones(engine: str) -> None:
    bench = Bench(engine)
    bench.go("in eax, 0x60\nhlt")
    assert bench.cpu.gpr(0) == 0xFFFF_FFFF


def test_a_bitmap_on_an_absent_page_is_a_page_fault(engine: str) -> None:
    """Reading the bitmap is an access of the supervisor's, whoever executes the IN."""
    bench, bus = _bench(engine)
    identity(bench)
    bench.store(LOW_TABLE + 4 * (BITMAP + 0xF234 // 8 >> 12), 0)
    bench.view[BITMAP + 0xF234 // 8] = 0
    arrived = bench.provoke(f"nop\nat: in al, dx\nmov [{DATA}], eax\nint 0x40", 3, edx=0xF234)
    assert (arrived.vector, arrived.frame[:3]) == (14, (0, bench.symbol("at"), CODE3))
    assert bench.cpu.cr2 == BITMAP + 0xF234 // 8
    assert (bus.log, bench.load(DATA)) == ([], (0,))


def test_a_16_bit_tss_has_no_bitmap(engine: str) -> None:
    bench, bus = _bench(engine)
    bench.view[BITMAP : BITMAP + 0x2001] = bytes(0x2001)
    bench.cpu.write_setting(Setting.TR, Segment(TSS_SELECTOR, TSS, TSS_LIMIT, PRESENT | 0x100))
    bench.view[TSS + 2 : TSS + 6] = KERNEL_STACK.to_bytes(2, "little") + DATA0.to_bytes(2, "little")
    arrived = bench.provoke("at: in al, dx", 3, edx=0x60)
    assert (arrived.vector, arrived.frame[:3], bus.log) == (13, (0, bench.symbol("at"), CODE3), [])
    assert bench.cpu.esp == KERNEL_STACK - 24
