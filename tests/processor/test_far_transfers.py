"""Far JMP, CALL and RETF: privilege, call gates, stacks, tasks, descriptors' bits, and 64-bit code."""

from __future__ import annotations

import struct

import pytest

from hvproto.images.assembly import assemble_text
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.far_kinds import FarKind, far_kind
from hvproto.processor.processor import Stop
from hvproto.processor.segments import (
    ACCESSED,
    DEFAULT_BIG,
    GRANULARITY,
    LONG,
    PRESENT,
    Segment,
    SegmentRegister,
    TableRegister,
    flat,
)
from hvproto.processor.settings import CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFLAGS_NT, EFLAGS_RF, Setting
from tests.support.bench import (
    ABSENT_CODE,
    CODE0,
    CODE3,
    CONFORMING0,
    DATA,
    DATA0,
    DATA3,
    GDT,
    IDT,
    KERNEL_STACK,
    NEVER,
    ORIGIN,
    SEGMENTS,
    STUBS,
    TSS,
    TSS_SELECTOR,
    USER_STACK,
    Bench,
)

GATE, FRESH, OTHER_TSS_SELECTOR, WIDE0, WIDE3 = 0x70, 0x80, 0x88, 0x90, 0x9B
OTHER_TSS = 0x5800
CALL_GATE_16, CALL_GATE_32, TASK_GATE = 0x4, 0xC, 0x5
BUSY = 2 << 8
DR6_BT = 1 << 15


def gate(kind: int, selector: int, offset: int, *, count: int = 0, present: bool = True) -> tuple[int, int]:
    """The doublewords of a gate of DPL 3."""
    high = offset & 0xFFFF_0000 | (0x8000 if present else 0) | 3 << 13 | kind << 8 | count
    return offset & 0xFFFF | selector << 16, high


def fresh_code(bench: Bench, dpl: int = 0, attributes: int = 0, limit: int = 0xFFFF_FFFF) -> None:
    """A code segment in the GDT that nobody has accessed."""
    segment = flat(FRESH | dpl, code=True, dpl=dpl)
    bench.describe(Segment(segment.selector, 0, limit, segment.attributes & ~ACCESSED | attributes))


def high_word(bench: Bench, selector: int) -> int:
    return bench.load(GDT + (selector & ~7) + 4)[0]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ea0000000008", FarKind.JMP), ("669a00000800", FarKind.CALL), ("ff2d00100000", FarKind.JMP_MEMORY),
        ("2eff5c2404", FarKind.CALL_MEMORY), ("ca0800", FarKind.RET), ("66cb", FarKind.RET), ("ffe0", None),
        ("ff15", None), ("ffeb", None), ("90", None), ("66", None),
    ],
)  # fmt: skip
def test_far_transfers_are_told_by_their_bytes(code: str, kind: FarKind | None) -> None:
    assert far_kind(bytes.fromhex(code), wide=False) is kind


def test_64_bit_code_has_rex_and_no_far_pointers_of_its_own() -> None:
    assert far_kind(bytes.fromhex("48ff1f"), wide=True) is FarKind.CALL_MEMORY
    assert far_kind(bytes.fromhex("48cb"), wide=True) is FarKind.RET
    assert far_kind(bytes.fromhex("ea"), wide=True) is None


@pytest.mark.parametrize(
    "instruction",
    [
        f"jmp {FRESH}:there",
        f"push {FRESH}\npush there\nretf",
        f".byte 0x66, 0xff, 0x2d\n.long {DATA}",
        f".byte 0xff, 0x2d\n.long {DATA} + 8",
    ],
)
def test_whoever_loads_a_segment_sets_its_accessed_bit(engine: str, instruction: str) -> None:
    bench = Bench(engine)
    fresh_code(bench)
    bench.store(DATA, FRESH << 16 | 0x100)
    bench.store(DATA + 8, 0x100, FRESH)
    bench.view[0x100] = 0xF4
    assert bench.go(f"{instruction}\nud2\nthere: hlt") is Stop.HALT
    assert high_word(bench, FRESH) & ACCESSED
    assert bench.cpu.code.attributes & ACCESSED
    assert bench.cpu.code.selector == FRESH


def test_a_conforming_segment_leaves_the_ring_as_it_is(engine: str) -> None:
    bench = Bench(engine)
    arrived = bench.provoke(f"call {CONFORMING0}:there\nud2\nthere: ud2", 3)
    assert (arrived.vector, arrived.frame[1]) == (6, CONFORMING0 | 3)
    assert arrived.frame[0] == bench.symbol("there")
    assert bench.load(USER_STACK - 4) == (CODE3,)


def test_a_16_bit_transfer_takes_and_pushes_words(engine: str) -> None:
    bench = Bench(engine)
    bench.view[0x100] = 0xF4
    code = f".byte 0x66, 0x9a\n.word 0x100, {CODE0}\nafter: nop"
    assert bench.go(code) is Stop.HALT
    assert bench.cpu.esp == KERNEL_STACK - 4
    assert bench.load(KERNEL_STACK - 4) == (CODE0 << 16 | bench.symbol("after") & 0xFFFF,)


def test_beyond_the_limit_of_a_code_segment(engine: str) -> None:
    bench = Bench(engine)
    fresh_code(bench, limit=0xFFF)
    arrived = bench.provoke(f"at: jmp {FRESH}:0x1000")
    assert (arrived.vector, arrived.frame[:3]) == (13, (0, bench.symbol("at"), CODE0))


def test_a_call_whose_stack_is_too_small_changes_nothing(engine: str) -> None:
    bench = Bench(engine)
    fresh_code(bench, dpl=3)
    bench.ring(3)
    short = Segment(DATA3, 0, 0xFFF, SEGMENTS[DATA3].attributes & ~GRANULARITY)
    bench.cpu.set_segments({SegmentRegister.SS: short})
    bench.code(f"at: call {FRESH | 3}:there\nthere: nop")
    bench.cpu.esp = 0x1008
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival()
    assert (arrived.vector, arrived.frame[:3]) == (12, (0, bench.symbol("at"), CODE3))
    assert arrived.frame[4:] == (0x1008, DATA3)


def test_an_inward_call_copies_its_parameters_and_the_return_drops_them(engine: str) -> None:
    bench = Bench(engine)
    bench.code(
        f"""
        push 0x11
        push 0x22
        call {GATE | 3}:0x12345678
        back: ud2
        routine:
        mov eax, [esp + 8]
        mov ebx, [esp + 12]
        mov ecx, ds
        mov edx, esp
        retf 8
        """
    )
    bench.store(GDT + GATE, *gate(CALL_GATE_32, CODE0, bench.symbol("routine"), count=2))
    bench.ring(3)
    bench.cpu.set_segments({SegmentRegister.ES: SEGMENTS[DATA0], SegmentRegister.FS: SEGMENTS[CONFORMING0]})
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival(5)
    assert arrived.vector == 6
    assert (arrived.frame[0], arrived.frame[1], *arrived.frame[3:]) == (bench.symbol("back"), CODE3, USER_STACK, DATA3)
    cpu = bench.cpu
    assert (cpu.gpr(0), cpu.gpr(3), cpu.gpr(2)) == (0x22, 0x11, KERNEL_STACK - 24)
    assert cpu.segment(SegmentRegister.ES).selector == 0, "of ring 0: closed"
    assert cpu.segment(SegmentRegister.FS).selector == CONFORMING0
    assert cpu.segment(SegmentRegister.DS).selector == DATA3


def test_a_16_bit_gate_has_16_bits_of_offset(engine: str) -> None:
    bench = Bench(engine)
    bench.view[0x100] = 0xF4
    bench.store(GDT + GATE, *gate(CALL_GATE_16, CODE0, 0xABCD_0100))
    assert bench.go(f"call {GATE}:0\nafter: nop") is Stop.HALT
    assert bench.cpu.eip == 0x101
    assert bench.load(KERNEL_STACK - 4) == (CODE0 << 16 | bench.symbol("after") & 0xFFFF,)


@pytest.mark.parametrize(
    ("word", "words", "vector", "error"),
    [
        ("jmp", gate(CALL_GATE_32, CODE0, 0), 13, CODE0),  # JMP doesn't go inward
        ("call", gate(CALL_GATE_32, ABSENT_CODE, 0), 11, ABSENT_CODE),
        ("call", gate(CALL_GATE_32, CODE3, 0, present=False), 11, GATE),
        ("call", gate(CALL_GATE_32, 0, 0), 13, 0),
        ("call", gate(CALL_GATE_32, DATA0, 0), 13, DATA0),
        ("jmp", gate(0xE, CODE3, 0), 13, GATE),
        ("jmp", gate(TASK_GATE, CODE0, 0), 13, CODE0),
    ],
)
def test_gates_that_are_refused(engine: str, word: str, words: tuple[int, int], vector: int, error: int) -> None:
    bench = Bench(engine)
    bench.store(GDT + GATE, *words)
    arrived = bench.provoke(f"at: {word} {GATE | 3}:0", 3)
    assert (arrived.vector, arrived.frame[:2]) == (vector, (error & ~3, bench.symbol("at")))
    assert arrived.frame[4] == USER_STACK


@pytest.mark.parametrize(("stack", "vector"), [(0, 13), (DATA0, 13), (0x4B, 12)])
def test_outward_to_a_stack_that_is_none(engine: str, stack: int, vector: int) -> None:
    bench = Bench(engine)
    absent = SEGMENTS[DATA3]
    bench.describe(Segment(0x4B, 0, absent.limit, absent.attributes & ~PRESENT))
    arrived = bench.provoke(f"push {stack}\npush 0x8000\npush {CODE3}\npush 0\nat: retf")
    assert (arrived.vector, arrived.frame[:3]) == (vector, (stack & ~3, bench.symbol("at"), CODE0))
    assert bench.cpu.segment(SegmentRegister.DS).selector == DATA0


def test_a_far_jump_to_itself_takes_time(engine: str) -> None:
    bench = Bench(engine)
    bench.code(f"at: jmp {CODE0}:at")
    assert bench.cpu.run(2000) is Stop.DEADLINE


# -- tasks -----------------------------------------------------------------------------------


def other_task(bench: Bench, eip: int, code: int = CODE0, stack: int = DATA0, *, trap: int = 0) -> None:
    bench.describe(Segment(OTHER_TSS_SELECTOR, OTHER_TSS, 0x67, PRESENT | 0x900 | 3 << 13))
    registers = (0xA0, 0xC1, 0xD2, 0xB3, 0x8800, 0xB5, 0x51, 0xD1)
    words = [
        0,
        KERNEL_STACK - 0x800,
        DATA0,
        0,
        0,
        0,
        0,
        0,
        eip,
        2,
        *registers,
        DATA0,
        code,
        stack,
        DATA0,
        0,
        0,
        0,
        trap,
    ]
    bench.store(OTHER_TSS, *words)
    bench.describe(Segment(TSS_SELECTOR, TSS, 0x2068, PRESENT | 0xB00))


@pytest.mark.parametrize("word", ["jmp", "call"])
@pytest.mark.parametrize("by_gate", [False, True])
def test_a_task_switch(engine: str, word: str, by_gate: bool) -> None:
    bench = Bench(engine)
    selector = GATE if by_gate else OTHER_TSS_SELECTOR
    bench.store(GDT + GATE, *gate(TASK_GATE, OTHER_TSS_SELECTOR, 0))
    bench.ring(0)
    bench.code(f"mov edi, 0x77\n{word} {selector}:0\nafter: ud2\nthere: hlt")
    other_task(bench, bench.symbol("there"))
    assert bench.cpu.run(NEVER) is Stop.HALT
    nested = word == "call"
    assert bench.cpu.eip == bench.symbol("there") + 1
    assert [bench.cpu.gpr(index) for index in (0, 4, 7)] == [0xA0, 0x8800, 0xD1]
    assert bool(bench.cpu.eflags & EFLAGS_NT) is nested
    assert bool(high_word(bench, TSS_SELECTOR) & BUSY) is nested
    assert high_word(bench, OTHER_TSS_SELECTOR) & BUSY
    assert bench.load(OTHER_TSS) == ((TSS_SELECTOR if nested else 0),)
    assert bench.load(TSS + 0x20) == (bench.symbol("after"),)
    assert bench.load(TSS + 0x44) == (0x77,)
    assert bench.cpu.tr.selector == OTHER_TSS_SELECTOR


def test_there_and_back_again(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code(f"mov ebx, 5\ncall {OTHER_TSS_SELECTOR}:0\nhlt\nthere: iret")
    other_task(bench, bench.symbol("there"))
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert (bench.cpu.gpr(3), bench.cpu.esp) == (5, KERNEL_STACK)
    assert bench.cpu.tr.selector == TSS_SELECTOR
    assert not high_word(bench, OTHER_TSS_SELECTOR) & BUSY


def test_a_task_that_cannot_begin_reports_it_itself(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code(f"jmp {OTHER_TSS_SELECTOR}:0\nthere: hlt")
    other_task(bench, bench.symbol("there"), stack=DATA3)
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival(6)
    assert arrived.vector == 10
    assert arrived.frame == (DATA3 & ~3, bench.symbol("there"), CODE0, 2 | EFLAGS_RF, 0x8800, DATA3)
    assert bench.cpu.tr.selector == OTHER_TSS_SELECTOR


def test_a_task_to_be_debugged_traps_before_its_first_instruction(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code(f"jmp {OTHER_TSS_SELECTOR}:0\nthere: ud2")
    other_task(bench, bench.symbol("there"), trap=1)
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival(3)
    assert (arrived.vector, arrived.frame) == (1, (bench.symbol("there"), CODE0, 2))
    assert bench.cpu.debug_register(6) & DR6_BT


def test_a_16_bit_task(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code(f"jmp {OTHER_TSS_SELECTOR}:0")
    bench.view[0x100] = 0xF4
    bench.describe(Segment(OTHER_TSS_SELECTOR, OTHER_TSS, 0x2B, PRESENT | 0x100))
    words = (0x100, 2, 1, 2, 3, 4, 0x8800, 6, 7, 8, DATA0, CODE0, DATA0, DATA0, 0)
    bench.view[OTHER_TSS + 14 : OTHER_TSS + 44] = struct.pack("<15H", *words)
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert (bench.cpu.eip, bench.cpu.gpr(0)) == (0x101, 0xFFFF_0001)
    assert bench.cpu.segment(SegmentRegister.FS).selector == 0


@pytest.mark.parametrize(
    ("limit", "attributes", "vector"),
    [(0x66, PRESENT | 0x900, 10), (0x67, PRESENT | 0xB00, 13), (0x67, 0x900, 11)],
)
def test_a_tss_that_cannot_be_entered(engine: str, limit: int, attributes: int, vector: int) -> None:
    bench = Bench(engine)
    bench.describe(Segment(OTHER_TSS_SELECTOR, OTHER_TSS, limit, attributes))
    arrived = bench.provoke(f"at: call {OTHER_TSS_SELECTOR}:0")
    assert (arrived.vector, arrived.frame[:2]) == (vector, (OTHER_TSS_SELECTOR, bench.symbol("at")))
    assert bench.cpu.tr.selector == TSS_SELECTOR


# -- 64-bit code -----------------------------------------------------------------------------

PML4, PDPT, DIRECTORY = 0x70000, 0x71000, 0x72000


def wide_bench(engine: str, text: str, level: int = 0) -> Bench:
    """In 64-bit code: a gate at GATE to the label ``routine``, RSP0 in the TSS, and all handlers at STUBS."""
    bench = Bench(engine)
    bench.store(PML4, PDPT | 7, 0)
    bench.store(PDPT, DIRECTORY | 7, 0)
    bench.store(DIRECTORY, 0x87, 0)
    cpu = bench.cpu
    for setting, value in ((Setting.CR4, CR4_PAE), (Setting.CR3, PML4), (Setting.EFER, EFER_LME | EFER_LMA)):
        cpu.write_setting(setting, value)
    cpu.write_setting(Setting.CR0, cpu.control(Setting.CR0) | CR0_PG)
    cpu.write_setting(Setting.IDTR, TableRegister(IDT, 0xFFF))
    for selector in (WIDE0, WIDE3):
        code = flat(selector, code=True, dpl=selector & 3)
        bench.describe(Segment(selector, 0, code.limit, code.attributes & ~DEFAULT_BIG | LONG))
    for vector in range(32):
        offset = STUBS + 16 * vector
        bench.store(IDT + 16 * vector, offset | WIDE0 << 16, 0x8E00, 0, 0)
    bench.store(TSS + 4, KERNEL_STACK, 0)
    code = flat(WIDE3 if level else WIDE0, code=True, dpl=level)
    bench.ring(level)
    wide = Segment(code.selector, 0, code.limit, code.attributes & ~DEFAULT_BIG | LONG)
    cpu.set_segments({SegmentRegister.CS: wide})
    image = assemble_text(text, origin=ORIGIN, bits=64)
    for segment in image.segments:
        bench.view[segment.address : segment.end] = segment.data
    cpu.engine.flush_code()
    cpu.eip = image.entry
    bench.image = image
    if "routine" in image.symbols:
        bench.store(GDT + GATE, *gate(CALL_GATE_32, WIDE0, image.symbols["routine"]), 0, 0)
    return bench


def quadwords(bench: Bench, address: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", bench.view[address : address + 8 * count])


def test_an_inward_call_of_64_bit_code_has_a_null_stack_segment(engine: str) -> None:
    text = f"call_far: .byte 0x48, 0xff, 0x1c, 0x25\n.long {DATA}\nback: ud2\nroutine: mov eax, ss\nhlt"
    bench = wide_bench(engine, text, 3)
    bench.view[DATA : DATA + 10] = struct.pack("<QH", 0x1234_5678_1234_5678, GATE | 3)
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert (bench.cpu.cpl, bench.cpu.code.selector, bench.cpu.stack.selector, bench.cpu.gpr(0)) == (0, WIDE0, 0, 0)
    assert bench.cpu.esp == KERNEL_STACK - 32
    pushed = quadwords(bench, KERNEL_STACK - 32, 4)
    assert pushed == (bench.symbol("back"), WIDE3, USER_STACK, DATA3)


def test_a_far_return_of_64_bit_code_to_compatibility_mode(engine: str) -> None:
    text = f"push {DATA3}\npush {USER_STACK}\npush {CODE3}\npush there\n.byte 0x48, 0xcb\nthere: ud2"
    bench = wide_bench(engine, text)
    assert bench.cpu.run(NEVER) is Stop.HALT
    frame = quadwords(bench, bench.cpu.esp, 5)
    assert (bench.cpu.eip, frame[:2], frame[3:]) == (
        STUBS + 16 * 6 + 1,
        (bench.symbol("there"), CODE3),
        (USER_STACK, DATA3),
    )


@pytest.mark.parametrize(
    ("selector", "offset", "error"),
    [(WIDE0, 1 << 47, 0), (TSS_SELECTOR, 0, TSS_SELECTOR), (FRESH, 0, FRESH), (DATA0, 0, DATA0)],
    ids=["not canonical", "a task", "both L and D", "data"],
)
def test_far_jumps_that_64_bit_code_refuses(engine: str, selector: int, offset: int, error: int) -> None:
    bench = wide_bench(engine, f"at: .byte 0x48, 0xff, 0x2c, 0x25\n.long {DATA}")
    fresh_code(bench, attributes=LONG)
    bench.view[DATA : DATA + 10] = struct.pack("<QH", offset, selector)
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.eip == STUBS + 16 * 13 + 1
    assert quadwords(bench, bench.cpu.esp, 3) == (error, bench.symbol("at"), WIDE0)


def test_a_task_switch_whose_handler_cannot_run_shuts_down(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code(f"jmp {OTHER_TSS_SELECTOR}:0")
    other_task(bench, 0, code=0)
    bench.cpu.write_setting(Setting.IDTR, TableRegister(IDT, 0))
    with pytest.raises(Shutdown):
        bench.cpu.run(NEVER)
