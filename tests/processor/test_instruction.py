"""Operands of the instruction that the processor stands before: read without effect, loaded and written with its rights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvproto.processor.exceptions import Raised
from hvproto.processor.instruction import Instruction, instruction_at
from hvproto.processor.segments import DEFAULT_BIG, SegmentRegister
from tests.support import long_mode as wide
from tests.support.bench import CODE0, CODE3, DATA, DATA0, DATA3, ORIGIN, SEGMENTS, Bench
from tests.support.page_tables import LOW_TABLE, P, U, identity

VALUE = 0x1122_3344_5566_7788


def before(bench: Bench, text: str) -> Instruction:
    bench.code(text)
    instruction = instruction_at(bench.cpu)
    assert instruction is not None
    return instruction


def in_long_mode(engine: str, *, user: bool = False) -> Bench:
    bench = Bench(engine)
    wide.build(bench)
    for setting, value in wide.LONG_SETTINGS.items():
        bench.cpu.write_setting(setting, value)
    code, stack = (wide.WIDE_CODE3, SEGMENTS[DATA3]) if user else (wide.WIDE_CODE0, wide.NULL_STACK)
    bench.cpu.set_segments({SegmentRegister.CS: code, SegmentRegister.SS: stack})
    for index in range(16):
        bench.cpu.set_gpr(index, VALUE)
    return bench


@pytest.mark.parametrize(
    ("text", "size", "number", "after"),
    [
        ("mov al, cl", 1, 0, VALUE & ~0xFF | 0xEF),
        ("mov bh, cl", 1, 3, VALUE & ~0xFF00 | 0xEF00),
        ("mov sil, cl", 1, 6, VALUE & ~0xFF | 0xEF),
        ("mov r9b, cl", 1, 9, VALUE & ~0xFF | 0xEF),
        ("mov dx, cx", 2, 2, VALUE & ~0xFFFF | 0xCDEF),
        ("mov r15w, cx", 2, 15, VALUE & ~0xFFFF | 0xCDEF),
        ("mov edi, ecx", 4, 7, 0x89AB_CDEF),
        ("mov r8d, ecx", 4, 8, 0x89AB_CDEF),
        ("mov rbp, rcx", 8, 5, 0x0123_4567_89AB_CDEF),
        ("mov r12, rcx", 8, 12, 0x0123_4567_89AB_CDEF),
    ],
)
def test_registers_of_64_bit_code(engine: str, text: str, size: int, number: int, after: int) -> None:
    """What is written is what the instruction itself would leave."""
    bench = in_long_mode(engine)
    bench.cpu.set_gpr(1, 0x0123_4567_89AB_CDEF)
    instruction = before(bench, f".code64\n{text}\nhlt")
    target, source = instruction.operands
    value = instruction.load(source, size)
    assert value == 0x0123_4567_89AB_CDEF & (1 << 8 * size) - 1 == instruction.read(source, size)
    instruction.write(target, size, value)
    assert bench.cpu.gpr(number) == after
    bench.cpu.set_gpr(number, VALUE)
    bench.cpu.run(1 << 40)
    assert bench.cpu.gpr(number) == after


def test_memory_with_the_rights_of_the_ring(engine: str) -> None:
    bench = Bench(engine)
    identity(bench)
    bench.store(DATA, 0x1234_5678)
    page = LOW_TABLE + 4 * (DATA >> 12)
    for level, flags, reads, writes in ((0, P, True, True), (3, P, False, False), (3, P | U, True, False)):
        bench.store(page, DATA | flags)
        bench.cpu.engine.flush_tlb()
        bench.ring(level)
        instruction = before(bench, f"add [{DATA}], eax")
        operand = instruction.operands[0]
        assert instruction.read(operand, 4) is not None
        if reads:
            bench.store(DATA, 0x1234_5678)
            assert instruction.load(operand, 4) == 0x1234_5678
        else:
            with pytest.raises(Raised) as caught:
                instruction.load(operand, 4)
            assert (caught.value.vector, caught.value.error_code, caught.value.cr2) == (14, 5, DATA)
        if writes:
            instruction.write(operand, 4, 0x1_89AB_CDEF)
            assert bench.load(DATA) == (0x89AB_CDEF,)
        else:
            with pytest.raises(Raised) as caught:
                instruction.write(operand, 4, 0)
            assert (caught.value.vector, caught.value.error_code, caught.value.cr2) == (14, 7, DATA)


def test_nothing_is_written_where_the_second_page_faults(engine: str) -> None:
    bench = Bench(engine)
    identity(bench)
    bench.ring(3)
    second = DATA + 0x1000
    bench.store(LOW_TABLE + 4 * (second >> 12), 0)
    bench.store(second - 4, 0x5AFE_5AFE)
    instruction = before(bench, f"mov [{second - 2}], eax")
    with pytest.raises(Raised) as caught:
        instruction.write(instruction.operands[0], 4, 0)
    assert (caught.value.vector, caught.value.error_code, caught.value.cr2) == (14, 6, second)
    assert bench.load(second - 4) == (0x5AFE_5AFE,)


@pytest.mark.parametrize(
    ("text", "vector"), [("mov [rbx], eax", 13), ("mov [rbp], eax", 12), ("mov fs:[rbx], eax", 13)]
)
def test_addresses_that_are_not_canonical(engine: str, text: str, vector: int) -> None:
    bench = in_long_mode(engine, user=True)
    bench.set(ebx=0x8000_0000_0000 - 2, ebp=0x8000_0000_0000)
    instruction = before(bench, f".code64\n{text}")
    for action in (instruction.load, lambda operand, size: instruction.write(operand, size, 0)):
        with pytest.raises(Raised) as caught:
            action(instruction.operands[0], 4)
        assert (caught.value.vector, caught.value.error_code) == (vector, 0)


def test_immediates_and_selectors(engine: str) -> None:
    bench = Bench(engine)
    instruction = before(bench, "mov eax, -2")
    assert instruction.load(instruction.operands[1], 4) == 0xFFFF_FFFE
    instruction = before(bench, "mov eax, ds")
    assert instruction.load(instruction.operands[1], 2) == DATA0
    assert (bench.cpu.eip, CODE3) == (ORIGIN, 0x1B)


def test_registers_have_names_of_all_sizes(engine: str) -> None:
    bench = in_long_mode(engine)
    cpu = bench.cpu
    cpu.set_gpr(4, 0xAABB_CCDD_EEFF_0011)
    cpu.set_gpr(10, 0x0123_4567_89AB_CDEF)
    names = {"spl": 0x11, "sp": 0x0011, "esp": 0xEEFF_0011, "rsp": 0xAABB_CCDD_EEFF_0011, "r10b": 0xEF, "r10w": 0xCDEF,
             "r10d": 0x89AB_CDEF, "r10": 0x0123_4567_89AB_CDEF, "ah": 0x77, "al": 0x88}  # fmt: skip
    assert {name: cpu.register(name) for name in names} == names
    for name in ("r16", "r7d", "xmm0", "eip", ""):
        with pytest.raises(ValueError, match="no general register"):
            cpu.register(name)


def test_the_same_bytes_are_another_instruction_in_another_mode(engine: str) -> None:
    """What has been decoded once is kept, by its bytes and by the mode; not by its address."""
    bench = Bench(engine)
    narrow = replace(SEGMENTS[CODE0], attributes=SEGMENTS[CODE0].attributes & ~DEFAULT_BIG)
    for _ in range(2):
        for code, size in ((SEGMENTS[CODE0], 5), (narrow, 3)):
            bench.code(".byte 0xb8, 0x34, 0x12, 0, 0\nhlt")  # mov eax, 0x1234 or mov ax, 0x1234
            bench.cpu.set_segments({SegmentRegister.CS: code})
            instruction = instruction_at(bench.cpu)
            assert instruction is not None
            assert (instruction.size, instruction.code) == (size, b"\xb8\x34\x12\0\0"[:size])
            bench.view[ORIGIN] = 0xBB
            other = instruction_at(bench.cpu)
            assert other is not None
            assert [other.name_of(one.operands[0].reg)[-2:] for one in (instruction, other)] == ["ax", "bx"]


def test_a_watched_instruction_is_looked_at_each_time(engine: str) -> None:
    """The same bytes at one address: a selector that may be loaded, one that may not, and another instruction there."""
    bench = Bench(engine)
    bench.go(f"""
        mov eax, {DATA0}
        mov ecx, 3
    again:
        mov ss, ax
        dec ecx
        jnz again
        mov byte ptr [there + 1], 0xd8      ; mov ds, ax
        mov eax, {DATA3}
        call there
        mov byte ptr [there + 1], 0xd0      ; mov ss, ax: not with this RPL
        mov ebx, 1
        call there
        hlt
    there:
        mov ss, ax
        ret
    """)
    arrived = bench.arrival()
    assert (arrived.vector, arrived.frame[:2]) == (13, (DATA3 & ~3, bench.symbol("there")))
    assert bench.cpu.gpr(3) == 1 and bench.cpu.gpr(1) == 0
