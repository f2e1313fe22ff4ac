"""Between a 32-bit environment and one of long mode, setting by setting from Python: code of each runs after it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest

from hvproto.processor.cpu import Cpu
from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister, TableRegister
from hvproto.processor.settings import (
    CR0_ET,
    CR0_PE,
    EFER_LMA,
    EFER_LME,
    EFLAGS_FIXED,
    EFLAGS_IF,
    Setting,
    SettingValue,
)
from tests.support import long_mode as wide
from tests.support.bench import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    IDT,
    KERNEL_STACK,
    NEVER,
    ORIGIN,
    SEGMENTS,
    STUBS,
    USER_STACK,
    Bench,
)

PAGING = (Setting.EFER, Setting.CR4, Setting.CR3, Setting.CR0)
TABLES = (Setting.GDTR, Setting.LDTR, Setting.IDTR, Setting.TR)
ORDERS = tuple(permutations(PAGING))
CODE_64 = ".code64\nmov rax, 0x1122334455667788\nmov r9, rax\nhere: lea rbx, [here]\nhlt"
USER_64 = ".code64\nmov r10, 0x8877665544332211\nint 0x41"
USER_32 = ".code32\nmov eax, 5\ninc eax\nint 0x40"


def enter(bench: Bench, settings: dict[Setting, SettingValue], order: Sequence[Setting]) -> None:
    for setting in order:
        bench.cpu.write_setting(setting, settings[setting])
    bench.cpu.engine.flush_tlb()
    assert {s: bench.cpu.read_setting(s) for s in settings} == settings


def agrees(bench: Bench) -> None:
    """What any processor derives from its registers is what the engine's own summary of them says."""
    for name in ("long_mode", "code64", "decoder_mode"):
        derived = getattr(Cpu, name).fget(bench.cpu)
        assert derived == getattr(bench.cpu, name), name


def segments(bench: Bench, code: object, stack: object) -> None:
    bench.cpu.set_segments({SegmentRegister.CS: code, SegmentRegister.SS: stack})  # type: ignore[dict-item]


def frame_64(bench: Bench) -> tuple[int, ...]:
    """The five words that a 64-bit gate pushes, from RSP upwards."""
    data = bench.cpu.read_bytes(bench.cpu.esp, 40)
    return tuple(int.from_bytes(data[i : i + 8], "little") for i in range(0, 40, 8))


def run_wide_kernel(bench: Bench) -> None:
    bench.code(CODE_64)
    segments(bench, wide.WIDE_CODE0, wide.NULL_STACK)
    bench.cpu.esp, bench.cpu.eip = wide.STACK64, wide.HIGH | ORIGIN
    assert bench.cpu.run(NEVER) is Stop.HALT
    cpu = bench.cpu
    assert (cpu.gpr(0), cpu.gpr(9)) == (0x1122334455667788, 0x1122334455667788)
    assert wide.HIGH < cpu.gpr(3) < cpu.eip < wide.HIGH | ORIGIN + 64
    assert (cpu.cpl, cpu.long_mode, cpu.code64) == (0, True, True)
    agrees(bench)


def run_compatibility_program(bench: Bench) -> None:
    bench.code(USER_32)
    segments(bench, SEGMENTS[CODE3], SEGMENTS[DATA3])
    bench.set(esp=USER_STACK, eflags=EFLAGS_FIXED | EFLAGS_IF)
    assert (bench.cpu.cpl, bench.cpu.code64) == (3, False)
    agrees(bench)
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.eip == STUBS + 16 * 0x40 + 1
    parity = 1 << 2
    assert frame_64(bench)[1:] == (CODE3, EFLAGS_FIXED | EFLAGS_IF | parity, USER_STACK, DATA3)
    assert (bench.cpu.gpr(0), bench.cpu.cpl, bench.cpu.esp) == (6, 0, wide.STACK64 - 40)


def run_wide_program(bench: Bench) -> None:
    bench.code(USER_64)
    segments(bench, wide.WIDE_CODE3, SEGMENTS[DATA3])
    bench.set(esp=wide.USER_STACK64, eip=wide.HIGH | ORIGIN)
    assert (bench.cpu.cpl, bench.cpu.code64) == (3, True)
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.eip == STUBS + 16 * 0x41 + 1
    rip, selector, _, rsp, stack = frame_64(bench)
    assert wide.HIGH | ORIGIN < rip < wide.HIGH | ORIGIN + 32
    assert (selector, rsp, stack) == (wide.WIDE3, wide.USER_STACK64, DATA3)
    assert bench.cpu.gpr(10) == 0x8877665544332211


def run_32(bench: Bench) -> None:
    """Ring 0 and ring 3 of the 32-bit environment."""
    assert bench.go("inc eax\nhlt", eax=0x7FFF_FFFF) is Stop.HALT
    assert (bench.cpu.gpr(0), bench.cpu.cpl, bench.cpu.long_mode, bench.cpu.code64) == (0x8000_0000, 0, False, False)
    agrees(bench)
    arrival = bench.provoke("inc eax\nint 0x42", level=3, words=5, eax=1)
    assert (arrival.vector, arrival.frame[1], arrival.frame[3:]) == (0x42, CODE3, (USER_STACK, DATA3))
    assert (bench.cpu.gpr(0), bench.cpu.esp) == (2, KERNEL_STACK - 20)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(s.name for s in order))
def test_there_and_back_in_any_order(engine: str, order: tuple[Setting, ...]) -> None:
    bench = Bench(engine)
    wide.build(bench)
    host = wide.host_settings(bench)
    for turn in (order, order[::-1]):
        enter(bench, wide.LONG_SETTINGS, turn + TABLES)
        run_wide_kernel(bench)
        run_compatibility_program(bench)
        run_wide_program(bench)
        enter(bench, host, TABLES + turn)
        run_32(bench)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(s.name for s in order))
def test_from_and_to_an_environment_without_paging(engine: str, order: tuple[Setting, ...]) -> None:
    bench = Bench(engine)
    wide.build(bench)
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET)
    host = wide.host_settings(bench)
    for setting in order + TABLES:
        bench.cpu.write_setting(setting, wide.LONG_SETTINGS[setting])
    assert wide.host_settings(bench) == wide.LONG_SETTINGS
    run_wide_kernel(bench)
    run_compatibility_program(bench)
    enter(bench, host, order + TABLES)
    run_32(bench)


def test_long_mode_enabled_but_not_active(engine: str) -> None:
    """A guest between its write of EFER and that of CR0: LME alone, while the other side's paging is still on."""
    bench = Bench(engine)
    wide.build(bench)
    host = wide.host_settings(bench)
    waiting: dict[Setting, SettingValue] = {
        Setting.EFER: EFER_LME,
        Setting.CR4: wide.LONG_SETTINGS[Setting.CR4],
        Setting.CR3: wide.PML4,
        Setting.CR0: CR0_PE | CR0_ET,
        Setting.IDTR: TableRegister(IDT, 0x7FF),
    }
    for before in (host, wide.LONG_SETTINGS):
        for order in ORDERS:
            enter(bench, before, PAGING + TABLES)
            enter(bench, waiting, (*order, Setting.IDTR))
            code = ".code32\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\nmov ecx, 0xc0000080\nrdmsr\nhlt"
            assert bench.go(code) is Stop.HALT
            assert bench.cpu.gpr(0) == EFER_LME | EFER_LMA
            assert bench.cpu.long_mode and not bench.cpu.code64


def test_a_user_state_of_long_mode_with_settings_of_32_bits(engine: str) -> None:
    bench = Bench(engine)
    wide.build(bench)
    host_context, host = bench.cpu.save_context(), wide.host_settings(bench)
    enter(bench, wide.LONG_SETTINGS, PAGING + TABLES)
    run_wide_kernel(bench)
    guest_context = bench.cpu.save_context()
    guest_eip = bench.cpu.eip

    bench.cpu.restore_user_state(host_context)
    assert wide.host_settings(bench) == wide.LONG_SETTINGS
    enter(bench, host, PAGING + TABLES)
    run_32(bench)

    bench.cpu.restore_user_state(guest_context)
    assert wide.host_settings(bench) == host
    enter(bench, wide.LONG_SETTINGS, PAGING + TABLES)
    assert (bench.cpu.eip, bench.cpu.gpr(9), bench.cpu.code64) == (guest_eip, 0x1122334455667788, True)
    bench.ram.view[guest_eip - wide.HIGH] = 0xF4
    bench.cpu.engine.flush_code()
    assert bench.cpu.run(NEVER) is Stop.HALT and bench.cpu.eip == guest_eip + 1


def test_a_user_state_without_paging_keeps_rip_of_long_mode_whole(engine: str) -> None:
    bench = Bench(engine)
    wide.build(bench)
    enter(bench, wide.LONG_SETTINGS, PAGING + TABLES)
    run_wide_kernel(bench)
    context, eip = bench.cpu.save_context(), bench.cpu.eip
    bench.cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET)
    bench.cpu.write_setting(Setting.EFER, 0)
    bench.cpu.restore_user_state(context)
    assert not bench.cpu.long_mode
    enter(bench, wide.LONG_SETTINGS, PAGING + TABLES)
    assert bench.cpu.eip == eip


@pytest.mark.parametrize("code", ["cli", "mov eax, cr3", "int 0x33", "div ecx", "in al, 0x60"])
def test_the_level_comes_from_the_stack_segment(engine: str, code: str) -> None:
    """Ring 3 by SS.DPL while the selectors say ring 0: what arrives has the selectors as they are."""
    bench = Bench(engine)
    bench.code(f"xor ecx, ecx\nx: {code}")
    cpu = bench.cpu
    segments(bench, SEGMENTS[CODE3].with_selector(CODE3 & ~3), SEGMENTS[DATA3].with_selector(DATA3 & ~3))
    cpu.esp = USER_STACK
    assert cpu.cpl == 3
    assert cpu.run(NEVER) is Stop.HALT
    vector = {"int 0x33": 0x33, "div ecx": 0}.get(code, 13)
    words = bench.arrival(6)
    frame = words.frame[1:] if vector == 13 else words.frame[:5]
    assert words.vector == vector
    assert (frame[1], frame[3], frame[4]) == (CODE3 & ~3, USER_STACK, DATA3 & ~3)
    assert (cpu.cpl, cpu.code.selector, cpu.stack.selector) == (0, CODE0, DATA0)


@pytest.mark.parametrize("code", [wide.WIDE_CODE3, SEGMENTS[CODE3]], ids=["64-bit", "compatibility"])
def test_the_level_comes_from_the_stack_segment_in_long_mode(engine: str, code: object) -> None:
    bench = Bench(engine)
    wide.build(bench)
    enter(bench, wide.LONG_SETTINGS, PAGING + TABLES)
    bench.view[ORIGIN] = 0xFA  # cli
    bench.cpu.engine.flush_code()
    lowered = code.with_selector(code.selector & ~3)  # type: ignore[attr-defined]
    segments(bench, lowered, SEGMENTS[DATA3].with_selector(DATA3 & ~3))
    bench.set(esp=USER_STACK, eip=ORIGIN)
    assert bench.cpu.cpl == 3
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.cpu.eip == STUBS + 16 * 13 + 1
    error, rip, selector, _, rsp = frame_64(bench)
    assert (error, rip, selector, rsp) == (0, ORIGIN, lowered.selector, USER_STACK)
    assert bench.cpu.read(bench.cpu.esp + 40, 8) == DATA3 & ~3
