"""The fast path of a delivery against the engine's own: the same in every bit, or not taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hvproto.processor import private_layout
from hvproto.processor.exceptions import Shutdown
from hvproto.processor.native import NativeEngine
from hvproto.processor.segments import ACCESSED, SegmentRegister
from hvproto.processor.settings import CR0_PE, CR4_PAE, EFLAGS_IF, EFLAGS_NT, EFLAGS_TF, Setting
from tests.support.bench import (
    BASED_CODE,
    CODE0,
    CODE3,
    CONFORMING0,
    DATA,
    DATA0,
    GDT,
    IDT,
    KERNEL_STACK,
    SEGMENTS,
    STACK16,
    STUBS,
    TSS,
    USER_STACK,
    Bench,
)
from tests.support.page_tables import LOW_TABLE, Tables

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

PAGING = {
    "no paging": None,
    "2-level": Tables(directory=0),
    "pae": Tables(pae=True, nxe=True, directory=0),
}
ABSENT_PAGE = 0x70000

EVENTS = {
    "int": ("int 0x30", 0x30),
    "int with flags": ("mov al, 0x7f\nadd al, 1\nstd\nint 0x31", 0x31),
    "int after dec": ("mov ecx, 1\ndec ecx\nint 0xff", 0xFF),
    "int of a vector with an error code": ("int 13", 13),
    "int3": ("stc\nint3", 3),
    "into": ("mov al, 0x7f\nadd al, 1\ninto", 4),
    "divide": ("xor ecx, ecx\ndiv ecx", 0),
    "bound": (f"mov dword ptr [{DATA}], 1\nmov dword ptr [{DATA} + 4], 2\nmov eax, 3\nbound eax, [{DATA}]", 5),
    "ud2": ("cmp eax, 1\nud2", 6),
    "absent segment": ("mov eax, 0x43\nmov ds, ax", 11),
    "selector beyond the table": ("mov eax, 0x1000\nmov es, ax", 13),
    "page fault on a load": (f"mov eax, [{ABSENT_PAGE} + 4]", 14),
    "page fault on a store": (f"shr eax, 1\nmov [{ABSENT_PAGE} + 8], eax", 14),
    "page fault on a fetch": (f"mov eax, {ABSENT_PAGE}\njmp eax", 14),
}


LEFT = ("absent segment", "selector beyond the table", "page fault on a fetch")


def _engine(bench: Bench) -> NativeEngine:
    assert isinstance(bench.cpu.engine, NativeEngine)
    return bench.cpu.engine


def _state(bench: Bench) -> dict[str, object]:
    """Everything that a delivery may change, and the engine's own view of it."""
    cpu, state = bench.cpu, _engine(bench).state()
    return {
        "registers": [cpu.gpr(index) for index in range(8)],
        "eip": cpu.eip,
        "eflags": cpu.eflags,
        "segments": [cpu.segment(register) for register in SegmentRegister],
        "cpl": cpu.cpl,
        "cr2": cpu.cr2,
        "summary": state.summary.value,
        "second summary": state.second_summary.value,
        "old exception": state.old_exception.value,
        "memory": bytes(bench.view),
    }


def _both(prepare: Callable[[Bench], None], text: str, level: int, **registers: int) -> tuple[Bench, bool]:
    """Deliver the same several times on both paths and compare; the bench, and whether the fast path took the last."""
    states = []
    for only_slow in (True, False):
        bench = Bench("native")
        prepare(bench)
        engine = _engine(bench)
        engine.only_slow.value = only_slow
        seen = []
        for turn in range(3):  # the TLB is filled by the first
            before = engine.fast_count.value
            try:
                outcome = repr(bench.go_again(level, **registers) if turn else bench.go(text, level, **registers))
            except Shutdown as shutdown:
                outcome = repr(shutdown)
            seen.append(_state(bench) | {"outcome": outcome})
        assert not only_slow or not engine.fast_count.value
        states.append(seen)
    for slow, fast in zip(*states, strict=True):
        for field, value in slow.items():
            assert fast[field] == value, field
    return bench, engine.fast_count.value > before


def _paging(name: str) -> Callable[[Bench], None]:
    tables = PAGING[name]

    def build(bench: Bench) -> None:
        if tables is not None:
            tables.build(bench)
            size = 8 if tables.pae else 4
            entry = LOW_TABLE + size * (ABSENT_PAGE >> 12)
            bench.view[entry : entry + size] = bytes(size)

    return build


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("paging", PAGING)
def test_both_paths_do_the_same(paging: str, event: str, level: int) -> None:
    text, vector = EVENTS[event]
    if vector == 14 and PAGING[paging] is None:
        pytest.skip("no page faults without paging")
    bench, fast = _both(_paging(paging), text, level)
    assert bench.arrival().vector == vector
    assert fast or event in LEFT, "taken unless Python delivers it anyway"


@pytest.mark.parametrize("trap", [False, True])
@pytest.mark.parametrize("level", [0, 3])
def test_the_handlers_flags(level: int, trap: bool) -> None:
    def prepare(bench: Bench) -> None:
        bench.gate(0x30, trap=trap)

    bench, fast = _both(prepare, "int 0x30", level, eflags=2 | EFLAGS_IF | EFLAGS_NT | 0xCD5)
    assert fast
    assert bench.cpu.eflags & (EFLAGS_IF | EFLAGS_NT | EFLAGS_TF) == (EFLAGS_IF if trap else 0)
    assert bench.arrival().frame[2] == 2 | EFLAGS_IF | EFLAGS_NT | 0xCD5


def test_a_data_segment_with_a_base_stays_one() -> None:
    def prepare(bench: Bench) -> None:
        bench.describe(
            replace(SEGMENTS[DATA0], selector=0x73, base=0x1000, attributes=SEGMENTS[DATA0].attributes | 3 << 13)
        )

    text = f"mov eax, 0x73\nmov es, ax\nmov dword ptr es:[{DATA}], 7\nint 0x30"
    bench, fast = _both(prepare, text, 3)
    assert fast
    assert bench.load(DATA + 0x1000) == (7,)


def _descriptor(selector: int, **changes: int) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        bench.describe(replace(SEGMENTS[selector], **changes))

    return prepare


def _clear(selector: int, bits: int) -> Callable[[Bench], None]:
    return _descriptor(selector, attributes=SEGMENTS[selector].attributes & ~bits)


def _gate(**changes: int) -> Callable[[Bench], None]:
    return lambda bench: bench.gate(0x30, **changes)  # type: ignore[arg-type]


def _limit(setting: Setting, limit: int) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        register = bench.cpu.engine.read_setting(setting)
        bench.cpu.write_setting(setting, replace(register, limit=limit))  # type: ignore[type-var, arg-type]

    return prepare


def _stack(esp0: int, ss0: int = DATA0) -> Callable[[Bench], None]:
    return lambda bench: bench.store(TSS + 4, esp0, ss0)


REFUSED = {
    "conforming code": _gate(selector=CONFORMING0),
    "code with a base": _gate(selector=BASED_CODE, target=STUBS + 16 * 0x30 - 0x8000 & 0xFFFFFFFF),
    "a null selector": _gate(selector=0),
    "a data segment": _gate(selector=DATA0),
    "an LDT selector": _gate(selector=CODE0 | 4),
    "code of ring 3": _gate(selector=CODE3),
    "an absent gate": _gate(present=False),
    "a gate of ring 0": _gate(dpl=0),
    "a 16-bit gate": _gate(wide=False),
    "code beyond the table": _gate(selector=0x800),
    "absent code": _clear(CODE0, 1 << 15),
    "a 16-bit stack": _stack(KERNEL_STACK, STACK16),
    "an absent stack": _clear(DATA0, 1 << 15),
    "a stack that can't be written": _clear(DATA0, 1 << 9),
    "a null stack": _stack(KERNEL_STACK, 0),
    "a stack of ring 3": _stack(KERNEL_STACK, DATA0 | 3),
    "a stack across two pages": _stack(KERNEL_STACK - 0x1000 + 8),
    "a stack that isn't aligned": _stack(KERNEL_STACK - 2),
    "an IDT that ends before it": _limit(Setting.IDTR, 0x30 * 8 + 6),
    "a GDT that ends before the stack": _limit(Setting.GDTR, DATA0 + 6),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_fast_path_does_not_take(what: str) -> None:
    """It comes out the same, and where it ends in another exception, only that may have gone the fast way."""
    bench, fast = _both(REFUSED[what], "int 0x30", 3)
    assert not fast or bench.arrival().vector == 13


def test_a_stack_at_the_beginning_of_memory() -> None:
    bench, fast = _both(_stack(20), "int 0x30", 3)
    assert fast
    assert bench.cpu.esp == 0
    assert bench.load(4) == (CODE3,)


@pytest.mark.parametrize("selector", [CODE0, DATA0])
def test_a_descriptor_is_marked_before_the_fast_path_takes_it(selector: int) -> None:
    bench = Bench("native")
    _clear(selector, ACCESSED)(bench)
    bench.provoke("int 0x30", 3)
    for _ in range(2):
        bench.go_again(3)
    assert bench.view[GDT + selector + 5] & 1
    assert _engine(bench).fast_count.value


def test_changed_tables_are_seen() -> None:
    """Nothing of a gate, a descriptor or the TSS is remembered from one delivery to the next."""
    bench = Bench("native")
    for number in range(4):
        bench.gate(0x30, target=STUBS + 16 * number)
        bench.store(TSS + 4, KERNEL_STACK - 64 * number)
        if number:
            bench.go_again(3)
        else:
            bench.go("int 0x30", 3)
        assert bench.arrival().vector == number
        assert bench.cpu.esp == KERNEL_STACK - 64 * number - 20
    assert _engine(bench).fast_count.value == 3


def test_a_page_that_is_taken_away_is_missed() -> None:
    bench = Bench("native")
    _paging("2-level")(bench)
    for _ in range(2):
        assert bench.provoke("int 0x30", 3).vector == 0x30
    entry = LOW_TABLE + 4 * (KERNEL_STACK - 0x1000 >> 12)
    bench.store(entry, KERNEL_STACK - 0x1000 | 5)  # read-only: for ring 0 it makes no difference while WP is clear
    bench.cpu.engine.flush_tlb()
    assert bench.provoke("int 0x30", 3).vector == 0x30
    assert bench.load(entry)[0] & 0x60 == 0x60, "accessed and dirty"


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("word", [0, 3])
def test_a_frame_over_translated_code_discards_the_translation(word: int, shift: int) -> None:
    """EIP 0x3c340 and ESP 0xcc340 in a frame are INC EAX and RET: they are called where a lone RET was before."""
    frame = KERNEL_STACK - shift - 20
    called = frame + 4 * word

    def prepare(bench: Bench) -> None:
        bench.store(TSS + 4, KERNEL_STACK - shift)
        bench.gate(0x31, target=0x21000)
        bench.view[0x21000] = 0xCF  # iretd
        bench.view[0x3C33E:0x3C342] = b"\xcd\x31\xff\xe6"  # int 0x31; jmp esi

    text = f"""
        mov esp, 0xcc340
        xor eax, eax
        mov edi, {called}
        mov ecx, 3
        mov ebx, 0x3c33e
    again:
        mov byte ptr [edi], 0xc3
        call edi
        mov esi, offset back
        jmp ebx
    back:
        call edi
        dec ecx
        jnz again
        int 0x30
    """
    bench, fast = _both(prepare, text, 3)
    assert fast
    assert bench.cpu.gpr(0) == 3


def test_the_switch_and_the_count() -> None:
    bench = Bench("native")
    engine = _engine(bench)
    bench.provoke("int 0x30", 3)
    for _ in range(2):
        bench.go_again(3)
    assert engine.fast_count.value == 2
    engine.only_slow.value = 1
    bench.go_again(3)
    assert engine.fast_count.value == 2
    assert bench.cpu.control(Setting.CR0) & CR0_PE
    assert not bench.cpu.control(Setting.CR4) & CR4_PAE
    assert (bench.view[IDT + 0x30 * 8 + 5], USER_STACK) == (0xEE, 0xB000)
