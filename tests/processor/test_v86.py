"""Virtual-8086 mode, as far as it concerns delivery: frames of nine words, null data segments, IOPL."""

from __future__ import annotations

import pytest

from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister, v86_segment
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM
from tests.support.bench import BITMAP, CODE0, CODE3, CONFORMING0, DATA0, KERNEL_STACK, NEVER, STUBS, Bench

PARAGRAPH = 0xE00
SELECTORS = {"gs": 0x1111, "fs": 0x1222, "ds": 0x1001, "es": 0x1002, "ss": 0x0D02}
SP = 0xFF0


def _enter(bench: Bench, code: bytes, flags: int = 0) -> None:
    """An IRET of ring 0 to 16-bit code at the start of a paragraph."""
    at = PARAGRAPH << 4
    bench.view[at : at + len(code)] = code
    frame = [0, PARAGRAPH, 2 | EFLAGS_VM | flags, SP, *(SELECTORS[n] for n in ("ss", "es", "ds", "fs", "gs"))]
    bench.store(KERNEL_STACK - 36, *frame)
    bench.ring(0)
    bench.code("iretd")
    bench.set(esp=KERNEL_STACK - 36, ecx=0)


def _frame(eip: int, flags: int = 0) -> tuple[int, ...]:
    return (eip, PARAGRAPH, 2 | EFLAGS_VM | flags, SELECTORS["ss"], SP)


@pytest.mark.parametrize(
    ("code", "flags", "vector", "error", "eip"),
    [
        (b"\x90\x0f\x0b", 0, 6, None, 1),  # ud2
        (b"\xf7\xf1", 0, 0, None, 0),  # div cx
        (b"\xf4", 0, 13, 0, 0),  # hlt
        (b"\xfa", 0, 13, 0, 0),  # cli, IOPL 0
        (b"\xcd\x30", 0, 13, 0, 0),  # int 0x30, IOPL 0
        (b"\xcd\x30", 3 << 12, 0x30, None, 2),
        (b"\xcc", 0, 3, None, 1),
        (b"\xe4\x60", 0, 13, 0, 0),  # in al, 0x60
        (b"\x90\x90", EFLAGS_TF, 1, None, 1),
        (b"\x9c", 0, 13, 0, 0),  # pushf, IOPL 0
    ],
)
def test_an_exception_of_v86_mode(
    engine: str, code: bytes, flags: int, vector: int, error: int | None, eip: int
) -> None:
    bench = Bench(engine)
    _enter(bench, code, flags)
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival(10)
    assert arrived.vector == vector
    frame = list(arrived.frame)
    if error is not None:
        assert frame.pop(0) == error
    reported_before = 0 if vector == 0x30 or vector in (1, 3, 4) else EFLAGS_RF
    assert frame[0:3] == [eip, PARAGRAPH, 2 | EFLAGS_VM | flags | reported_before]
    assert frame[3:5] == [SP, SELECTORS["ss"]]
    assert frame[5:9] == [SELECTORS[name] for name in ("es", "ds", "fs", "gs")]
    assert bench.cpu.esp == KERNEL_STACK - 36 - (4 if error is not None else 0)
    assert (bench.cpu.cpl, bench.cpu.code.selector, bench.cpu.stack.selector) == (0, CODE0, DATA0)
    assert [bench.cpu.segment(r).selector for r in (SegmentRegister.ES, SegmentRegister.DS, SegmentRegister.FS)] == [
        0
    ] * 3
    assert not bench.cpu.eflags & EFLAGS_VM


def test_the_state_in_v86_mode(engine: str) -> None:
    bench = Bench(engine)
    _enter(bench, b"\xeb\xfe", EFLAGS_IF)
    assert bench.cpu.run(100) is Stop.DEADLINE
    assert bench.cpu.cpl == 3
    for name, selector in {**SELECTORS, "cs": PARAGRAPH}.items():
        assert bench.cpu.segment(SegmentRegister[name.upper()]) == v86_segment(selector)


@pytest.mark.parametrize("engine_way", [True, False])
def test_an_interrupt_of_v86_mode_and_the_return(engine: str, engine_way: bool) -> None:
    """By INT n with IOPL 3, or from outside: after the IRET everything is as before."""
    bench = Bench(engine)
    bench.view[STUBS + 16 * 0x30] = 0xCF  # iretd
    _enter(bench, b"\xcd\x30\x41\xeb\xfd" if engine_way else b"\x41\xeb\xfd", EFLAGS_IF | 3 << 12)
    for turn in range(3):
        bench.cpu.run(bench.cpu.now + 50)
        before = (bench.cpu.cpl, [bench.cpu.segment(r) for r in SegmentRegister], bench.cpu.esp)
        assert before[0] == 3 and before[2] == SP
        if not engine_way:
            bench.cpu.interrupt(0x30)
            assert bench.cpu.cpl == 0
        bench.cpu.run(bench.cpu.now + 50)
        assert (bench.cpu.cpl, [bench.cpu.segment(r) for r in SegmentRegister], bench.cpu.esp) == before, turn
    assert bench.cpu.gpr(1) > 20


@pytest.mark.parametrize("selector", [CODE3, CONFORMING0])
def test_a_handler_must_run_at_ring_0(engine: str, selector: int) -> None:
    bench = Bench(engine)
    bench.gate(6, selector)
    _enter(bench, b"\x0f\x0b")
    bench.cpu.run(NEVER)
    arrived = bench.arrival(3)
    assert (arrived.vector, arrived.frame[0]) == (13, (selector & ~3) + 1)
    assert arrived.frame[2] == PARAGRAPH


def test_ports_of_v86_mode_need_the_bitmap_whatever_iopl_is(engine: str) -> None:
    bench = Bench(engine)
    bench.view[BITMAP + 0x60 // 8] = 0xFE
    _enter(bench, b"\xe4\x60\xe4\x61", 3 << 12)
    bench.cpu.run(NEVER)
    arrived = bench.arrival(2)
    assert (arrived.vector, arrived.frame) == (13, (0, 2))
