"""Registers, settings, segments and whole contexts: what is written is what is read, and what code sees."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvproto.errors import BadInput
from hvproto.machine.ram import Ram
from hvproto.processor.engine import GPR_NAMES
from hvproto.processor.native import NativeEngine
from hvproto.processor.paging import Access
from hvproto.processor.portable import PortableEngine
from hvproto.processor.processor import ENGINE_VARIABLE, Processor, Stop, choose_engine
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister
from hvproto.processor.settings import (
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_TS,
    CR0_WP,
    CR4_OSFXSR,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    EFER_NXE,
    EFLAGS_FIXED,
    Setting,
    pack_setting,
    unpack_setting,
)
from tests.support.bench import (
    CODE0,
    CODE3,
    CONFORMING0,
    DATA,
    DATA0,
    DATA3,
    IDT,
    LDT,
    LDT_SELECTOR,
    NEVER,
    SEGMENTS,
    STACK16,
    TSS_SELECTOR,
    USER_STACK,
    Bench,
)
from tests.support.page_tables import LOW_TABLE, identity

word32 = st.integers(0, 0xFFFF_FFFF)


def test_general_registers_keep_what_is_written(engine: str) -> None:
    bench = Bench(engine)
    for index in range(8):
        bench.cpu.set_gpr(index, 0x1111_1111 * (index + 1) + (1 << 40))
    assert [bench.cpu.gpr(i) for i in range(8)] == [0x1111_1111 * (i + 1) for i in range(8)]
    bench.cpu.eip = 0x1_2345_6789
    registers = bench.cpu.registers()
    assert list(registers) == [*GPR_NAMES, "eip", "eflags"]
    assert registers["esi"] == 0x7777_7777
    assert registers["eip"] == bench.cpu.eip == 0x2345_6789


def test_code_sees_the_registers(engine: str) -> None:
    bench = Bench(engine)
    bench.code(f"mov esp, {DATA} + 36\npushad\nhlt")
    bench.set(eax=1, ecx=2, edx=3, ebx=4, ebp=5, esi=6, edi=7)
    bench.cpu.run(NEVER)
    assert bench.load(DATA + 4, 8) == (7, 6, 5, DATA + 36, 4, 3, 2, 1)


@pytest.mark.parametrize("bit", [0, 2, 4, 6, 7, 8, 9, 10, 11, 14, 16, 18, 21])
def test_every_flag_keeps_what_is_written(engine: str, bit: int) -> None:
    bench = Bench(engine)
    bench.cpu.eflags = EFLAGS_FIXED | 1 << bit
    assert bench.cpu.eflags == EFLAGS_FIXED | 1 << bit
    bench.cpu.eflags = EFLAGS_FIXED
    assert bench.cpu.eflags == EFLAGS_FIXED


def test_flags_that_code_has_computed_are_read(engine: str) -> None:
    bench = Bench(engine)
    bench.go("mov eax, 0x80000000\nadd eax, eax\nhlt")
    assert bench.cpu.eflags == EFLAGS_FIXED | 1 | 1 << 6 | 1 << 2 | 1 << 11


VALUES = {
    Setting.IDTR: [TableRegister(0x1234_5678, 0x7FF), TableRegister(0, 0), TableRegister(0xFFFF_F000, 0xFFFF)],
    Setting.GDTR: [TableRegister(0x8765_4321, 0x17), TableRegister(0, 0xFFFF)],
    Setting.LDTR: [SEGMENTS[LDT_SELECTOR], Segment(0)],
    Setting.TR: [SEGMENTS[TSS_SELECTOR], Segment(0x28, 0x1234, 0x67, 0x8900)],
    Setting.CR0: [CR0_PE | CR0_ET, CR0_PE | CR0_ET | CR0_WP | CR0_TS | CR0_MP | CR0_NE],
    Setting.CR3: [0, 0x1234_5000, 0xFFFF_F018],
    Setting.CR4: [0, CR4_PSE, CR4_PAE | CR4_PGE | CR4_OSFXSR],
    Setting.EFER: [0, EFER_NXE, 1, EFER_NXE | 1],
}


@pytest.mark.parametrize("setting", Setting)
def test_settings_keep_what_is_written(engine: str, setting: Setting) -> None:
    bench = Bench(engine)
    for value in [*VALUES[setting], *reversed(VALUES[setting])]:
        before = {other: bench.cpu.read_setting(other) for other in Setting if other is not setting}
        bench.cpu.write_setting(setting, value)
        assert bench.cpu.read_setting(setting) == value
        assert unpack_setting(pack_setting(setting, value)) == (setting, value)
        assert {other: bench.cpu.read_setting(other) for other in Setting if other is not setting} == before


def test_settings_that_code_loads_are_read(engine: str) -> None:
    bench = Bench(engine)
    bench.store(DATA, 0x5678_03FF, 0x0000_1234, 0x1000_01FF, 0)
    bench.go(
        f"""
        lidt [{DATA}]
        lgdt [{DATA} + 8]
        mov ax, {LDT_SELECTOR}
        lldt ax
        mov ax, {TSS_SELECTOR}
        ltr ax
        mov eax, 0x7000
        mov cr3, eax
        mov ecx, 0xc0000080
        xor edx, edx
        mov eax, 0x800
        wrmsr
        hlt
        """
    )
    cpu = bench.cpu
    assert cpu.idtr == TableRegister(0x1234_5678, 0x3FF)
    assert cpu.gdtr == TableRegister(0x1000, 0x1FF)
    assert cpu.ldtr == SEGMENTS[LDT_SELECTOR]
    tr = cpu.tr
    assert (tr.selector, tr.base, tr.limit) == (TSS_SELECTOR, SEGMENTS[TSS_SELECTOR].base, SEGMENTS[TSS_SELECTOR].limit)
    assert cpu.control(Setting.CR3) == 0x7000
    assert cpu.control(Setting.EFER) == EFER_NXE
    # What was read can be written back, though LTR has marked the TSS as busy.
    cpu.write_setting(Setting.TR, tr)
    cpu.write_setting(Setting.IDTR, TableRegister(IDT, 0x7FF))
    assert bench.provoke("ud2", 3).vector == 6


def test_code_sees_the_settings(engine: str) -> None:
    bench = Bench(engine)
    bench.cpu.write_setting(Setting.IDTR, TableRegister(0x1234_5678, 0x3FF))
    bench.cpu.write_setting(Setting.CR3, 0x9000)
    bench.go(f"sidt [{DATA}]\nmov eax, cr3\nstr bx\nhlt")
    assert bench.load(DATA, 2) == (0x5678_03FF, 0x0000_1234)
    assert bench.cpu.gpr(0) == 0x9000
    assert bench.cpu.gpr(3) & 0xFFFF == TSS_SELECTOR


def test_data_segments_keep_what_is_written(engine: str) -> None:
    bench = Bench(engine)
    in_ldt = Segment(0x0F, 0x4000, 0xFFF, SEGMENTS[DATA3].attributes & ~(1 << 23))
    bench.describe(in_ldt, LDT)
    bench.cpu.write_setting(Setting.LDTR, SEGMENTS[LDT_SELECTOR])
    wanted = {
        SegmentRegister.ES: SEGMENTS[DATA3],
        SegmentRegister.DS: SEGMENTS[STACK16],
        SegmentRegister.FS: in_ldt,
        SegmentRegister.GS: SEGMENTS[CODE3],
    }
    bench.cpu.set_segments(wanted)
    for register, segment in wanted.items():
        assert bench.cpu.segment(register) == segment
    bench.store(0x4010, 0x1357)
    bench.code("mov eax, fs:[0x10]\nmov bx, fs\nhlt")
    bench.cpu.run(NEVER)
    assert (bench.cpu.gpr(0), bench.cpu.gpr(3)) == (0x1357, 0x0F)


@pytest.mark.parametrize("first", [0, 3])
def test_the_privilege_level_follows_ss(engine: str, first: int) -> None:
    bench = Bench(engine)
    for level in (first, 3 - first, first, first):
        bench.ring(level)
        assert bench.cpu.cpl == level
        assert bench.cpu.code == SEGMENTS[CODE3 if level else CODE0]
        assert bench.cpu.stack == SEGMENTS[DATA3 if level else DATA0]
        arrived = bench.provoke("at: cli\nint 0x40", level)
        assert arrived.vector == (13 if level else 0x40)


def test_a_change_of_level_leaves_everything_else(engine: str) -> None:
    bench = Bench(engine)
    identity(bench)
    bench.set(eax=1, ebx=2, esp=3, eflags=0x246)
    before = (bench.cpu.registers(), {s: bench.cpu.read_setting(s) for s in Setting}, bench.cpu.cr2)
    for level in (3, 0, 3, 0):
        code, stack = (CODE3, DATA3) if level else (CODE0, DATA0)
        bench.cpu.set_segments({SegmentRegister.CS: SEGMENTS[code], SegmentRegister.SS: SEGMENTS[stack]})
        assert (bench.cpu.registers(), {s: bench.cpu.read_setting(s) for s in Setting}, bench.cpu.cr2) == before


def test_conforming_code_at_ring_3(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(3)
    conforming = SEGMENTS[CONFORMING0].with_selector(CONFORMING0 | 3)
    bench.cpu.set_segments({SegmentRegister.CS: conforming})
    assert bench.cpu.cpl == 3
    bench.code("at: cli")
    bench.cpu.run(NEVER)
    assert (bench.arrival().vector, bench.arrival().frame[2]) == (13, CONFORMING0 | 3)


# -- memory ----------------------------------------------------------------------------------


@given(st.integers(0, 0xF_F000), st.binary(min_size=1, max_size=64))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_memory_without_paging(engine: str, at: int, data: bytes) -> None:
    bench = Bench(engine)
    bench.cpu.write_bytes(at, data)
    assert bytes(bench.view[at : at + len(data)]) == bench.cpu.read_bytes(at, len(data)) == data
    assert bench.cpu.peek(at, len(data)) == data
    assert bench.cpu.read(at, 2) == int.from_bytes(bench.view[at : at + 2], "little")


def test_memory_across_pages_that_lie_apart(engine: str) -> None:
    bench = Bench(engine)
    identity(bench)
    bench.store(LOW_TABLE + 4 * 0x20, 0x3_0007, 0x5_0007)
    bench.cpu.write(0x2_0FFD, 4, 0x11223344)
    assert (bytes(bench.view[0x3_0FFD:0x3_1000]), bench.view[0x5_0000]) == (b"\x44\x33\x22", 0x11)
    assert bench.cpu.read(0x2_0FFD, 4) == 0x11223344
    assert bench.cpu.translate(0x2_1004, Access.READ) == 0x5_0004
    assert bench.cpu.peek(0x4000_0000, 4) is None
    assert bench.cpu.read_physical(len(bench.view), 1) is None


# -- contexts --------------------------------------------------------------------------------

SET_UP = """
        fninit
        fldpi
        fld1
        fldl2e
        mov dword ptr [0x10000], 0x1f90
        ldmxcsr [0x10000]
        movups xmm0, [0x10010]
        movups xmm7, [0x10020]
        movq mm0, qword ptr [0x10030]
        stc
        std
        hlt
"""
DUMP = "fxsave [0x10200]\npushfd\npop dword ptr [0x10400]\nsidt [0x10404]\nmov eax, cr3\nmov [0x10410], eax\nhlt"
SPOIL = """
        fninit
        fldz
        mov dword ptr [0x10000], 0x1f80
        ldmxcsr [0x10000]
        xorps xmm0, xmm0
        xorps xmm7, xmm7
        pxor mm0, mm0
        lidt [0x10000]
        mov eax, 0x5000
        mov cr3, eax
        clc
        cld
        mov ebx, 9
        mov esp, 0xa000
        mov ds, bx
        hlt
"""


def _sse(bench: Bench) -> None:
    bench.cpu.write_setting(Setting.CR4, CR4_OSFXSR)
    for i in range(12):
        bench.store(DATA + 0x10 + 4 * i, 0x0123_4567 * (i + 1))


def test_a_context_brings_everything_back(engine: str) -> None:
    images = []
    for spoiled in (False, True):
        bench = Bench(engine)
        _sse(bench)
        bench.go(SET_UP, ebx=5)
        context = bench.cpu.save_context()
        before = (bench.cpu.registers(), {s: bench.cpu.read_setting(s) for s in Setting})
        if spoiled:
            bench.ring(3)
            bench.set(eax=77, edi=78)
            bench.ring(0)
            bench.go(SPOIL.replace("mov ds, bx", "nop"))
            bench.cpu.restore_context(context)
            assert (bench.cpu.registers(), {s: bench.cpu.read_setting(s) for s in Setting}) == before
        bench.code(DUMP)
        bench.cpu.run(NEVER)
        images.append((bytes(bench.view[DATA + 0x200 : DATA + 0x420]), bench.cpu.registers()))
    assert images[0] == images[1]


def test_a_context_brings_the_privilege_level_back(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(3)
    bench.code("at: cli")
    bench.set(ebx=3)
    user = bench.cpu.save_context()
    assert bench.cpu.run(NEVER) is Stop.HALT
    kernel = bench.cpu.save_context()
    for _ in range(2):
        bench.cpu.restore_context(user)
        assert (bench.cpu.cpl, bench.cpu.esp, bench.cpu.eip) == (3, USER_STACK, bench.symbol("at"))
        assert bench.cpu.run(NEVER) is Stop.HALT
        assert bench.arrival().vector == 13
        bench.cpu.restore_context(kernel)
        assert bench.cpu.cpl == 0
        assert bench.arrival().vector == 13


def test_a_context_brings_other_page_tables_back(engine: str) -> None:
    bench = Bench(engine)
    context = bench.cpu.save_context()
    identity(bench)
    bench.store(LOW_TABLE + 4 * (DATA >> 12), 0x3_0007)
    bench.store(0x3_0000, 1)
    bench.store(DATA, 2)
    bench.go(f"mov eax, [{DATA}]\nhlt")
    assert bench.cpu.gpr(0) == 1
    paged = bench.cpu.save_context()
    for _ in range(2):
        for state, value in ((context, 2), (paged, 1)):
            bench.cpu.restore_context(state)
            bench.go(f"mov eax, [{DATA}]\nhlt")
            assert bench.cpu.gpr(0) == value


@given(st.lists(st.tuples(word32, word32), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_contexts_dont_mix(engine: str, states: list[tuple[int, int]]) -> None:
    bench = Bench(engine)
    saved = []
    for eax, esi in states:
        bench.set(eax=eax, esi=esi)
        saved.append(bench.cpu.save_context())
    for context, (eax, esi) in reversed(list(zip(saved, states, strict=True))):
        bench.cpu.restore_context(context)
        assert (bench.cpu.gpr(0), bench.cpu.gpr(6)) == (eax, esi)


# -- the choice of an engine -----------------------------------------------------------------


def test_the_engine_is_chosen_by_name_or_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("native") is NativeEngine
    assert choose_engine("portable") is PortableEngine
    monkeypatch.setenv(ENGINE_VARIABLE, "portable")
    assert choose_engine() is PortableEngine
    assert choose_engine("native") is NativeEngine
    monkeypatch.setenv(ENGINE_VARIABLE, "")
    assert choose_engine() in (NativeEngine, PortableEngine)
    for name in ("Native", "fast"):
        with pytest.raises(BadInput, match=name):
            choose_engine(name)
        monkeypatch.setenv(ENGINE_VARIABLE, name)
        with pytest.raises(BadInput, match=ENGINE_VARIABLE):
            Processor(Ram(1 << 20).view)
