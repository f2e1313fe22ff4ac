"""Faults while an event is being delivered: what they report, double faults, shutdown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvproto.errors import Fault
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.segments import Segment, TableRegister
from hvproto.processor.settings import EFLAGS_FIXED, EFLAGS_IF, Setting
from tests.support.bench import (
    ABSENT_CODE,
    ABSENT_STACK,
    CODE0,
    CODE3,
    CONFORMING0,
    DATA0,
    DATA3,
    IDT,
    KERNEL_STACK,
    NEVER,
    READ_ONLY0,
    SEGMENTS,
    STUBS,
    TSS,
    TSS_SELECTOR,
    USER_STACK,
    Arrival,
    Bench,
)

V = 0x30


def _idt_limit(bench: Bench, vector: int) -> None:
    """The IDT ends before the vector; what a fault needs moves to... the vectors below stay."""
    bench.cpu.write_setting(Setting.IDTR, TableRegister(IDT, vector * 8 + 6))


def _no_gate(bench: Bench, vector: int) -> None:
    bench.store(IDT + 8 * vector, 0, 0)


def _call_gate(bench: Bench, vector: int) -> None:
    bench.gate(vector)
    bench.view[IDT + 8 * vector + 5] = 0xEC


BAD_GATES: dict[str, tuple[Callable[[Bench, int], None], int, int | None]] = {
    # (what is wrong, the fault's vector, its error code without EXT or None for the gate's own)
    "no gate": (_no_gate, 13, None),
    "a call gate": (_call_gate, 13, None),
    "an absent gate": (lambda b, v: b.gate(v, present=False), 11, None),
    "a null selector": (lambda b, v: b.gate(v, 3), 13, 0),
    "a selector beyond the GDT": (lambda b, v: b.gate(v, 0x800), 13, 0x800),
    "a selector in no LDT": (lambda b, v: b.gate(v, 0x0C), 13, 0x0C),
    "a data segment": (lambda b, v: b.gate(v, DATA0), 13, DATA0),
    "a system segment": (lambda b, v: b.gate(v, TSS_SELECTOR), 13, TSS_SELECTOR),
    "an absent code segment": (lambda b, v: b.gate(v, ABSENT_CODE), 11, ABSENT_CODE),
}


@pytest.mark.parametrize("name", BAD_GATES)
@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("kind", ["software", "exception", "external"])
def test_a_bad_gate(engine: str, name: str, level: int, kind: str) -> None:
    spoil, expected, error = BAD_GATES[name]
    bench = Bench(engine)
    vector = 6 if kind == "exception" else V
    spoil(bench, vector)
    bench.ring(level)
    bench.code({"software": "at: int 0x30", "exception": "at: ud2", "external": "at: nop\njmp at"}[kind])
    if kind == "external":
        bench.cpu.eflags = EFLAGS_FIXED | EFLAGS_IF
        bench.cpu.interrupt(vector)
    bench.cpu.run(NEVER)
    arrived = bench.arrival()
    assert arrived.vector == expected
    external = 0 if kind == "software" else 1
    assert arrived.frame[0] == (vector * 8 + 2 if error is None else error) + external
    assert arrived.frame[1:3] == (bench.symbol("at"), CODE3 if level else CODE0)
    assert bench.cpu.esp == KERNEL_STACK - 4 * (6 if level else 4)


@pytest.mark.parametrize("level", [0, 3])
def test_an_idt_that_is_too_short(engine: str, level: int) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.IDTR, TableRegister(IDT, V * 8 + 6))
    arrived = bench.provoke("at: int 0x30", level)
    assert (arrived.vector, arrived.frame[:2]) == (13, (V * 8 + 2, bench.symbol("at")))
    bench.cpu.write_setting(Setting.IDTR, TableRegister(IDT, V * 8 + 7))
    assert bench.provoke("at: int 0x30", level).vector == V


def test_a_handler_in_an_outer_ring(engine: str) -> None:
    for text, external in (("at: int 0x30", 0), ("at: ud2", 1)):
        bench = Bench(engine)
        bench.gate(V, CODE3)
        bench.gate(6, CODE3)
        arrived = bench.provoke(text, 0)
        assert (arrived.vector, arrived.frame[:2]) == (13, ((CODE3 & ~3) + external, bench.symbol("at")))
        # At ring 3 itself it is fine: no change of stack.
        stop = bench.go(text, 3)
        assert stop is Stop.HALT
        assert bench.arrival().vector == 13, "the stub's HLT is privileged"
        assert bench.load(USER_STACK - 12, 2) == (bench.symbol("at") + (0 if external else 2), CODE3)


BAD_STACKS: dict[str, tuple[tuple[int, ...], int, int]] = {
    # (TSS contents from ESP0, the fault's vector, its error code without EXT)
    "null": ((KERNEL_STACK, 0), 10, 0),
    "null with RPL": ((KERNEL_STACK, 3), 10, 0),
    "beyond the GDT": ((KERNEL_STACK, 0x900), 10, 0x900),
    "RPL 3": ((KERNEL_STACK, DATA0 | 3), 10, DATA0),
    "DPL 3": ((KERNEL_STACK, DATA3 & ~3), 10, DATA3 & ~3),
    "read-only": ((KERNEL_STACK, READ_ONLY0), 10, READ_ONLY0),
    "code": ((KERNEL_STACK, CODE0), 10, CODE0),
    "absent": ((KERNEL_STACK, ABSENT_STACK), 12, ABSENT_STACK),
}


def _arrival_in_ring_3(bench: Bench, text: str) -> Arrival:
    """Like `Bench.provoke`; #TS and #SS have handlers in conforming segments, which need no stack of ring 0."""
    for vector in (10, 11, 12, 13):
        bench.gate(vector, CONFORMING0)
        bench.view[STUBS + 16 * vector : STUBS + 16 * vector + 2] = b"\xeb\xfe"
    bench.ring(3)
    bench.code(text)
    assert bench.cpu.run(1000) is Stop.DEADLINE
    assert bench.cpu.cpl == 3
    return Arrival((bench.cpu.eip - STUBS) // 16, bench.load(bench.cpu.esp, 4))


@pytest.mark.parametrize("name", BAD_STACKS)
@pytest.mark.parametrize("kind", ["software", "exception"])
def test_a_bad_stack_in_the_tss(engine: str, name: str, kind: str) -> None:
    stack, expected, error = BAD_STACKS[name]
    bench = Bench(engine)
    bench.store(TSS + 4, *stack)
    arrived = _arrival_in_ring_3(bench, "at: int 0x30" if kind == "software" else "at: ud2")
    external = 0 if kind == "software" else 1
    assert (arrived.vector, arrived.frame[:3]) == (expected, (error + external, bench.symbol("at"), CODE3))


@pytest.mark.parametrize("limit", [0, 7, 8])
def test_a_tss_that_is_too_short(engine: str, limit: int) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.TR, Segment(TSS_SELECTOR, TSS, limit, SEGMENTS[TSS_SELECTOR].attributes))
    arrived = _arrival_in_ring_3(bench, "at: ud2")
    assert (arrived.vector, arrived.frame[:2]) == (10, (TSS_SELECTOR | 1, bench.symbol("at")))


def test_a_tss_that_is_just_long_enough(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.TR, Segment(TSS_SELECTOR, TSS, 9, SEGMENTS[TSS_SELECTOR].attributes))
    assert bench.provoke("ud2", 3).vector == 6


def test_without_any_tss(engine: str) -> None:
    """A kernel that enters ring 3 before it has loaded TR: the error code names the null selector."""
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.TR, Processor(bench.view, engine).read_setting(Setting.TR))
    arrived = _arrival_in_ring_3(bench, "at: ud2")
    assert (arrived.vector, arrived.frame[:2]) == (10, (1, bench.symbol("at")))


def test_a_double_fault(engine: str) -> None:
    bench = Bench(engine)
    bench.gate(0, ABSENT_CODE)
    for level in (0, 3):
        arrived = bench.provoke("xor ecx, ecx\nat: div ecx", level)
        assert (arrived.vector, arrived.frame[:3]) == (8, (0, bench.symbol("at"), CODE3 if level else CODE0))


def test_the_first_fault_after_a_delivered_one_is_no_double_fault(engine: str) -> None:
    bench = Bench(engine)
    for _ in range(4):
        assert bench.provoke("cli", 3).vector == 13
        assert bench.provoke("xor ecx, ecx\ndiv ecx", 3).vector == 0


SHUTDOWNS: dict[str, tuple[str, int, Callable[[Bench], None], tuple[Fault, ...]]] = {
    "no IDT": ("ud2", 0, lambda b: b.cpu.write_setting(Setting.IDTR, TableRegister(0, 0)),
               (Fault(6), Fault(13, 6 * 8 + 3), Fault(13, 13 * 8 + 3), Fault(13, 8 * 8 + 3))),
    "no IDT for an int": ("int 0x30", 0, lambda b: b.cpu.write_setting(Setting.IDTR, TableRegister(0, 0)),
               (Fault(13, 0x30 * 8 + 2), Fault(13, 13 * 8 + 3), Fault(13, 8 * 8 + 3))),
    "no #GP and no #DF": ("cli", 3, lambda b: [_no_gate(b, 13), _no_gate(b, 8)] and None,
               (Fault(13, 0), Fault(13, 13 * 8 + 3), Fault(13, 8 * 8 + 3))),
    "no stack": ("xor ecx, ecx\ndiv ecx", 3, lambda b: b.store(TSS + 4, 0, 0),
               (Fault(0), Fault(10, 1), Fault(10, 1))),
    "absent stack": ("xor ecx, ecx\ndiv ecx", 3, lambda b: b.store(TSS + 4, 0, ABSENT_STACK),
               (Fault(0), Fault(12, ABSENT_STACK | 1), Fault(12, ABSENT_STACK | 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", SHUTDOWNS)
def test_a_triple_fault_shuts_down_and_says_why(engine: str, name: str) -> None:
    text, level, spoil, faults = SHUTDOWNS[name]
    bench = Bench(engine)
    spoil(bench)
    with pytest.raises(Shutdown) as caught:
        bench.go(text, level)
    assert caught.value.faults == faults
    assert bench.cpu.cpl == level
