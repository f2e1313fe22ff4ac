"""An external interrupt delivered between two runs by the engine's machine code, against Python's delivery: the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvproto.processor import private_layout
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.settings import EFLAGS_DF, EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF
from tests.processor.test_fast_delivery import PAGING, REFUSED, _engine, _paging, _state
from tests.support.bench import KERNEL_STACK, NEVER, STUBS, Bench

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

FLAGS = {
    "none": 2,
    "IF": 2 | EFLAGS_IF,
    "arithmetic and DF": 0x8D7 | EFLAGS_DF | EFLAGS_IF,
    "NT": 2 | EFLAGS_NT | EFLAGS_IF,
    "TF": 2 | EFLAGS_TF | EFLAGS_IF,
    "RF": 2 | EFLAGS_RF | EFLAGS_IF,
}


def both(
    prepare: Callable[[Bench], None], level: int, vector: int, eflags: int = 2 | EFLAGS_IF, *, between: bool = True
) -> tuple[Bench, bool]:
    """The same interrupt on both ways, before one instruction; the bench, and whether the quick way took it.

    ``between``: behind an INT, which has put all that is needed in the TLB.
    """
    states = []
    for only_slow in (True, False):
        bench = Bench("native")
        engine = _engine(bench)
        prepare(bench)
        try:
            bench.go("int 0x31\nnop", level)
        except Shutdown:
            bench = Bench("native")
            engine = _engine(bench)
            prepare(bench)
            bench.code("int 0x31\nnop")
        if not between:
            engine.flush_tlb()
        bench.ring(level)
        assert bench.image is not None
        bench.cpu.eip = bench.image.entry + 2
        bench.cpu.eflags = eflags
        engine.only_slow.value = only_slow
        before = engine.fast_count.value
        try:
            bench.cpu.interrupt(vector)
            outcome = ""
        except Shutdown as shutdown:
            outcome = repr(shutdown)
        states.append(_state(bench) | {"outcome": outcome, "counts": list(engine.counts)})
        states[-1].pop("old exception")
    for field, value in states[0].items():
        assert states[1][field] == value, field
    return bench, engine.fast_count.value > before


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("paging", PAGING)
def test_both_ways_do_the_same(paging: str, flags: str, level: int) -> None:
    bench, quick = both(_paging(paging), level, 0x50, FLAGS[flags])
    assert quick
    assert bench.cpu.run(NEVER).name == "HALT"
    assert bench.arrival().vector == 0x50


@pytest.mark.parametrize("vector", [2, 8, 13, 17])
def test_a_vector_of_an_exception_pushes_no_error_code(vector: int) -> None:
    bench, quick = both(_paging("2-level"), 3, vector)
    assert not quick
    assert bench.cpu.esp == KERNEL_STACK - 20


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("paging", PAGING)
def test_without_its_pages_in_the_tlb_python_delivers(paging: str, level: int) -> None:
    bench, quick = both(_paging(paging), level, 0x30, between=False)
    assert not quick
    assert bench.cpu.eip == STUBS + 16 * 0x30


@pytest.mark.parametrize("what", [name for name in REFUSED if name != "a gate of ring 0"])
def test_what_the_quick_way_does_not_take(what: str) -> None:
    _, quick = both(REFUSED[what], 3, 0x30)
    assert not quick


def test_a_gate_of_ring_0_is_open_to_interrupts() -> None:
    assert both(REFUSED["a gate of ring 0"], 3, 0x30)[1]


def test_a_frame_over_translated_code() -> None:
    """A lone HLT was run where the frame's EIP, 0xf440, then is INC EAX and HLT."""
    bench = Bench("native")
    frame = KERNEL_STACK - 12
    bench.code("int 0x50\nhlt")
    bench.view[frame] = 0xF4
    bench.cpu.engine.flush_code()
    bench.ring(0)
    bench.set(eip=frame, eax=0, esp=KERNEL_STACK - 0x100)
    bench.cpu.run(NEVER)
    bench.go_again(esp=KERNEL_STACK - 0x100)
    count = _engine(bench).fast_count.value
    bench.set(eip=0xF440, esp=KERNEL_STACK)
    bench.cpu.interrupt(0x50)
    assert _engine(bench).fast_count.value == count + 1
    assert bench.load(frame) == (0xF440,)
    bench.set(eip=frame)
    bench.cpu.run(NEVER)
    assert bench.cpu.gpr(0) == 1


def test_the_shadow_of_an_sti_ends() -> None:
    bench = Bench("native")
    bench.go("int 0x50")
    bench.ring(0)
    bench.cpu.set_shadow(True)
    bench.cpu.interrupt(0x50)
    assert not bench.cpu.in_interrupt_shadow
