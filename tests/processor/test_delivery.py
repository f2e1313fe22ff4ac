"""Exceptions and software interrupts through real gates: frames, error codes, checks, stack switches."""

from __future__ import annotations

import pytest

from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import CR0_EM, CR0_TS, EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_TF, Setting
from tests.support.bench import (
    ABSENT_DATA,
    BASE_OF_CODE,
    BASED_CODE,
    CODE0,
    CODE3,
    CONFORMING0,
    DATA,
    DATA0,
    DATA3,
    KERNEL_STACK,
    NEVER,
    SEGMENTS,
    STACK16,
    STUBS,
    TSS,
    USER_STACK,
    Arrival,
    Bench,
)

FAULTS = {
    "divide by zero": ("xor ecx, ecx\nat: div ecx", 0, None),
    "quotient too large": ("mov edx, 5\nmov ecx, 2\nat: div ecx", 0, None),
    "bound": (
        f"mov dword ptr [{DATA}], 1\nmov dword ptr [{DATA} + 4], 2\nmov eax, 3\nat: bound eax, [{DATA}]",
        5,
        None,
    ),
    "ud2": ("at: ud2", 6, None),
    "invalid lock": ("at: .byte 0xf0, 0x90", 6, None),
    "absent segment": (f"mov eax, {ABSENT_DATA}\nat: mov ds, ax", 11, ABSENT_DATA & ~3),
    "selector beyond the table": ("mov eax, 0x1000\nat: mov es, ax", 13, 0x1000),
    "stack selector that is code": ("mov eax, 0x1b\nat: mov ss, ax", 13, 0x18),
    "null stack": ("xor eax, eax\nat: mov ss, ax", 13, 0),
    "cli": ("at: cli", 13, 0),
    "hlt": ("at: hlt", 13, 0),
    "mov cr3": ("at: mov cr3, eax", 13, 0),
    "lgdt": (f"at: lgdt [{DATA}]", 13, 0),
    "wrmsr": ("at: wrmsr", 13, 0),
    "in": ("at: in al, 0x60", 13, 0),
    "out": ("at: out 0x60, al", 13, 0),
    "far jump to ring 0": ("at: jmp 0x08:at", 13, 0x08),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_ring_3_arrives_at_ring_0_with_its_frame(engine: str, name: str) -> None:
    text, vector, error = FAULTS[name]
    bench = Bench(engine)
    arrived = bench.provoke(text, 3, 6 if error is not None else 5)
    assert arrived.vector == vector
    frame = list(arrived.frame)
    if error is not None:
        assert frame.pop(0) == error
    eip, cs, eflags, esp, ss = frame
    assert (eip, cs, esp, ss) == (bench.symbol("at"), CODE3, USER_STACK, DATA3)
    assert eflags & ~0x8D5 == 2 | EFLAGS_RF, "a fault reports RF set, so that the instruction may be resumed"
    assert bench.cpu.cpl == 0
    assert bench.cpu.esp == KERNEL_STACK - 20 - (4 if error is not None else 0)
    assert (bench.cpu.code.selector, bench.cpu.stack.selector) == (CODE0, DATA0)


@pytest.mark.parametrize(("cr0", "instruction"), [(CR0_TS, "fnop"), (CR0_EM, "fnop"), (CR0_TS, "movaps xmm0, xmm1")])
def test_no_coprocessor(engine: str, cr0: int, instruction: str) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.CR4, 1 << 9)
    bench.cpu.write_setting(Setting.CR0, bench.cpu.control(Setting.CR0) | cr0)
    arrived = bench.provoke(f"at: {instruction}", 3)
    assert (arrived.vector, arrived.frame[0]) == (7, bench.symbol("at"))


def test_an_absent_stack_segment(engine: str) -> None:
    bench = Bench(engine)
    arrived = bench.provoke("mov eax, 0x48\nat: mov ss, ax", 0)
    assert (arrived.vector, arrived.frame[:2]) == (12, (0x48, bench.symbol("at")))


@pytest.mark.parametrize(
    ("text", "vector", "length"),
    [("int 0x30", 0x30, 2), ("int3", 3, 1), ("int 3", 3, 2), (".byte 0xcd, 3", 3, 2), ("int 4", 4, 2),
     ("mov al, 0x7f\nadd al, 1\nat: into", 4, 1), ("int 0xcc", 0xCC, 2), ("int 255", 255, 2), ("int 14", 14, 2),
     ("int 13", 13, 2), ("int 8", 8, 2), ("int 0", 0, 2)],
)  # fmt: skip
@pytest.mark.parametrize("level", [0, 3])
def test_a_software_interrupt_returns_behind_itself_and_has_no_error_code(
    engine: str, text: str, vector: int, length: int, level: int
) -> None:
    bench = Bench(engine)
    arrived = bench.provoke(text if "at:" in text else f"at: {text}\nnop", level)
    assert arrived.vector == vector
    assert arrived.frame[0] == bench.symbol("at") + length
    assert arrived.frame[1] == (CODE3 if level else CODE0)


@pytest.mark.parametrize(("text", "vector"), [("int 0x30", 0x30), ("int3", 3), ("mov al, 127\nadd al, 1\nat: into", 4)])
def test_software_interrupts_need_the_gates_privilege(engine: str, text: str, vector: int) -> None:
    for dpl in range(4):
        for level in (0, 3):
            bench = Bench(engine)
            bench.gate(vector, dpl=dpl)
            arrived = bench.provoke(text if "at:" in text else f"at: {text}", level)
            if dpl >= level:
                assert arrived.vector == vector
            else:
                assert arrived.vector == 13
                assert arrived.frame[:2] == (vector * 8 + 2, bench.symbol("at"))


@pytest.mark.parametrize("vector", [0, 6, 13, 14])
def test_exceptions_dont_care_for_the_gates_privilege(engine: str, vector: int) -> None:
    bench = Bench(engine)
    bench.gate(vector, dpl=0)
    text = {0: "xor ecx, ecx\ndiv ecx", 6: "ud2", 13: "cli", 14: "mov eax, [0x80000000]"}[vector]
    if vector == 14:
        pytest.skip("needs paging: see test_paging")
    assert bench.provoke(text, 3).vector == vector


def test_single_step(engine: str) -> None:
    bench = Bench(engine)
    arrived = bench.provoke("mov eax, 1\nbehind: mov eax, 2\nnop", 3, 5, eflags=2 | EFLAGS_TF)
    assert arrived.vector == 1
    assert arrived.frame[0] == bench.symbol("behind")
    assert arrived.frame[2] & EFLAGS_TF
    assert not bench.cpu.eflags & EFLAGS_TF, "the handler doesn't step itself"
    assert bench.cpu.gpr(0) == 1


def test_stepping_through_a_program_with_iret(engine: str) -> None:
    bench = Bench(engine)
    text = f"""
        pushfd
        or dword ptr [esp], 0x100
        popfd
    a:  nop
    b:  mov ecx, 2
    c:  loop c
    d:  and dword ptr [esp - 4], 0
        int 0x40
    handler:
        mov eax, [esp]
        mov edi, [{DATA}]
        mov [edi], eax
        add dword ptr [{DATA}], 4
        iret
    """
    bench.ring(3)
    bench.code(text)
    bench.gate(1, target=bench.symbol("handler"))
    bench.store(DATA, DATA + 4)
    bench.cpu.run(NEVER)
    names = ["b", "c", "c", "d"]
    steps = bench.load(DATA + 4, len(names))
    assert steps == tuple(bench.symbol(name) for name in names)
    assert bench.arrival().vector == 0x40


@pytest.mark.parametrize("trap", [False, True])
@pytest.mark.parametrize("level", [0, 3])
def test_an_interrupt_gate_clears_if_and_a_trap_gate_does_not(engine: str, trap: bool, level: int) -> None:
    bench = Bench(engine)
    for vector in (6, 0x30):
        bench.gate(vector, trap=trap)
    for text in ("ud2", "int 0x30"):
        arrived = bench.provoke(text, level, eflags=2 | EFLAGS_IF | EFLAGS_NT)
        assert bool(bench.cpu.eflags & EFLAGS_IF) is trap
        assert not bench.cpu.eflags & EFLAGS_NT
        assert arrived.frame[2] & (EFLAGS_IF | EFLAGS_NT) == EFLAGS_IF | EFLAGS_NT


def test_an_interrupt_from_outside_goes_through_the_gate_too(engine: str) -> None:
    bench = Bench(engine)
    bench.gate(0x21, dpl=0)
    for level in (0, 3):
        bench.ring(level)
        bench.code("nop\nat: jmp $")
        bench.cpu.eflags = 2 | EFLAGS_IF
        bench.cpu.run(bench.cpu.now + 100)
        bench.cpu.interrupt(0x21)
        assert bench.cpu.eip == STUBS + 16 * 0x21
        bench.cpu.run(NEVER)
        arrived = bench.arrival()
        assert (arrived.vector, arrived.frame[0], arrived.frame[1]) == (
            0x21, bench.symbol("at"), CODE3 if level else CODE0,
        )  # fmt: skip


def test_a_handler_with_iret_leaves_no_trace(engine: str) -> None:
    bench = Bench(engine)
    before = {"eax": 1, "ecx": 2, "edx": 3, "ebx": 4, "ebp": 5, "esi": 6, "edi": 7}
    bench.ring(3)
    bench.code("stc\nstd\nat: int 0x30\nint 0x31\nback: iret")
    bench.gate(0x30, target=bench.symbol("back"))
    bench.set(**before)
    bench.cpu.run(NEVER)
    arrived = bench.arrival(5)
    assert arrived == Arrival(0x31, (bench.symbol("at") + 4, CODE3, 0x403, USER_STACK, DATA3))
    registers = bench.cpu.registers()
    assert {name: registers[name] for name in before} == before


@pytest.mark.parametrize("level", [0, 3])
def test_a_conforming_handler_stays_in_the_callers_ring_and_stack(engine: str, level: int) -> None:
    bench = Bench(engine)
    bench.ring(level)
    bench.code("at: int 0x30\nhandler: nop\nmov eax, cs\nhere: jmp here")
    bench.gate(0x30, CONFORMING0, target=bench.symbol("handler"))
    bench.cpu.run(100)
    assert bench.cpu.eip == bench.symbol("here")
    assert bench.cpu.cpl == level
    assert bench.cpu.gpr(0) == CONFORMING0 | level
    stack = USER_STACK if level else KERNEL_STACK
    assert bench.cpu.esp == stack - 12
    assert bench.load(stack - 12, 2) == (bench.symbol("at") + 2, CODE3 if level else CODE0)


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("error", [False, True])
def test_a_16_bit_gate_pushes_words(engine: str, level: int, error: bool) -> None:
    bench = Bench(engine)
    bench.gate(13 if error else 6, wide=False)
    bench.store(TSS + 4, KERNEL_STACK, DATA0)
    arrived = bench.provoke("mov eax, 0x1000\nat: mov ds, ax" if error else "at: ud2", level)
    raw = b"".join(word.to_bytes(4, "little") for word in arrived.frame)
    words = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, 12, 2)]
    if error:
        assert words.pop(0) == 0x1000
    assert words[:2] == [bench.symbol("at") & 0xFFFF, CODE3 if level else CODE0]
    if level:
        assert words[3:5] == [USER_STACK & 0xFFFF, DATA3]
        assert bench.cpu.esp == KERNEL_STACK - 10 - 2 * error


def test_the_handler_may_lie_in_a_segment_with_a_base(engine: str) -> None:
    bench = Bench(engine)
    bench.view[BASE_OF_CODE + 0x100] = 0xF4
    bench.gate(6, BASED_CODE, target=0x100)
    assert bench.go("at: ud2", 3) is Stop.HALT
    assert (bench.cpu.eip, bench.cpu.code.selector, bench.cpu.code.base) == (0x101, BASED_CODE, BASE_OF_CODE)
    assert bench.load(KERNEL_STACK - 20)[0] == bench.symbol("at")


def test_code_in_a_segment_with_a_base_reports_offsets(engine: str) -> None:
    bench = Bench(engine)
    bench.code("start: jmp 0x60:there - 0x8000\nthere: nop\nat: ud2\n")
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival()
    assert (arrived.vector, arrived.frame[0], arrived.frame[1]) == (6, bench.symbol("at") - BASE_OF_CODE, BASED_CODE)


def test_a_16_bit_stack_wraps(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.set_segments({SegmentRegister.SS: SEGMENTS[STACK16]})
    bench.code("at: int 0x30")
    bench.set(esp=0x1234_0004)
    bench.cpu.run(NEVER)
    assert bench.cpu.esp == 0x1234_FFF8
    assert bench.load(0)[0] == 2
    assert bench.load(0xFFF8, 2) == (bench.symbol("at") + 2, CODE0)
