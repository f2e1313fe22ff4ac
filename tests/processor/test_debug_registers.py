"""Debug registers loaded from Python, and whole states with breakpoints in them: code runs into them afterwards."""

from __future__ import annotations

import pytest

from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import DR6_ONES, DR7_ONES, EFLAGS_FIXED
from tests.support import long_mode as wide
from tests.support.bench import CODE0, DATA, KERNEL_STACK, NEVER, ORIGIN, STUBS, Bench

ENABLED_0 = DR7_ONES | 2
WRITES_0 = ENABLED_0 | 0b1101 << 16
"""Four bytes, write."""
NOTHING = (0, 0, 0, 0, DR6_ONES, DR7_ONES)
CODE = f"nop\nhere: nop\nmov [{DATA}], eax\nbehind: nop\nhlt"


def on_code(bench: Bench) -> tuple[int, ...]:
    return (bench.symbol("here"), 0, 0, 0, DR6_ONES, ENABLED_0)


def run(bench: Bench) -> Stop:
    bench.ring(0)
    bench.set(eip=ORIGIN, eflags=EFLAGS_FIXED)
    return bench.cpu.run(NEVER)


def hits_code(bench: Bench) -> None:
    assert run(bench) is Stop.HALT
    assert bench.arrival(3).frame == (bench.symbol("here"), CODE0, EFLAGS_FIXED)
    assert bench.cpu.debug_register(6) == DR6_ONES | 1


def hits_nothing(bench: Bench) -> None:
    assert run(bench) is Stop.HALT
    assert bench.cpu.eip == bench.symbol("behind") + 2


def test_an_instruction_breakpoint_comes_and_goes(engine: str) -> None:
    bench = Bench(engine)
    bench.code(CODE)
    hits_nothing(bench)
    before = bytes(bench.view[:0x1000])
    for _ in range(3):
        bench.cpu.load_debug_registers(on_code(bench))
        hits_code(bench)
        bench.cpu.load_debug_registers(NOTHING)
        hits_nothing(bench)
    assert bytes(bench.view[:0x1000]) == before


def test_loading_changes_nothing_else(engine: str) -> None:
    bench = Bench(engine)
    wide.build(bench)
    for setting, value in wide.LONG_SETTINGS.items():
        bench.cpu.write_setting(setting, value)
    cpu = bench.cpu
    cpu.set_segments({SegmentRegister.CS: wide.WIDE_CODE3, SegmentRegister.SS: wide.NULL_STACK})
    for index in range(16):
        cpu.set_gpr(index, 0x1111_2222_3333_0000 + index)
    bench.set(eip=wide.HIGH | 0x1234, eflags=0x24_4ED7)
    cpu.set_shadow(True)

    def seen() -> tuple[object, ...]:
        return (
            cpu.registers(), wide.host_settings(bench), [cpu.segment(register) for register in SegmentRegister], cpu.cpl,
            cpu.code64, cpu.in_interrupt_shadow, cpu.now, cpu.cr2,
        )  # fmt: skip

    before = seen()
    values = (wide.HIGH | 0x1238, 0, 7, 9, DR6_ONES | 0x4001, ENABLED_0)
    cpu.load_debug_registers(values)
    assert seen() == before
    assert tuple(cpu.debug_register(number) for number in (0, 1, 2, 3, 6, 7)) == values


def test_a_data_breakpoint_is_in_effect_at_once(engine: str) -> None:
    bench = Bench(engine)
    bench.code(CODE)
    bench.cpu.load_debug_registers((DATA, 0, 0, 0, DR6_ONES, WRITES_0))
    assert run(bench) is Stop.HALT
    assert bench.arrival(3).frame == (bench.symbol("behind"), CODE0, EFLAGS_FIXED)
    bench.cpu.load_debug_registers(NOTHING)
    hits_nothing(bench)


@pytest.mark.parametrize("by_guest", [False, True])
def test_states_with_and_without_breakpoints_are_exchanged(engine: str, by_guest: bool) -> None:
    """Contexts outlive the breakpoints that the engine had when they were saved."""
    bench = Bench(engine)
    bench.code(CODE)
    empty = bench.cpu.save_context()
    if by_guest:
        values = {"eax": bench.symbol("here"), "ebx": ENABLED_0}
        code = bench.image
        stop = bench.go("mov dr0, eax\nmov dr7, ebx\nhlt", **values)
        while stop is Stop.DEADLINE:  # each MOV to a debug register ends a run
            stop = bench.cpu.run(NEVER)
        assert code is not None
        bench.code(CODE)
    else:
        bench.cpu.load_debug_registers(on_code(bench))
    hits_code(bench)
    full = bench.cpu.save_context()
    for _ in range(5):
        hits_code(bench)
        bench.cpu.restore_context(empty)
        hits_nothing(bench)
        bench.cpu.restore_context(full)
        assert (bench.cpu.debug_register(7), bench.cpu.debug_register(0)) == (ENABLED_0, bench.symbol("here"))
        hits_code(bench)
        bench.cpu.load_debug_registers(NOTHING)
        hits_nothing(bench)
        bench.cpu.restore_user_state(full)


def test_data_breakpoints_come_with_the_state(engine: str) -> None:
    bench = Bench(engine)
    bench.code(CODE)
    empty = bench.cpu.save_context()
    bench.cpu.load_debug_registers((DATA, 0, 0, 0, DR6_ONES, WRITES_0))
    full = bench.cpu.save_context()
    bench.cpu.restore_context(empty)
    hits_nothing(bench)
    bench.cpu.restore_context(full)
    assert run(bench) is Stop.HALT
    assert bench.cpu.eip == STUBS + 16 + 1 and bench.cpu.esp == KERNEL_STACK - 12


def test_a_breakpoint_where_the_engine_has_just_translated(engine: str) -> None:
    """A block with an instruction to be looked at is translated twice; the trap comes once, behind the instruction."""
    bench = Bench(engine)
    bench.code(f"nop\njmp here\nhere: lock inc dword ptr [{DATA}]\nbehind: nop\nhlt")
    bench.cpu.load_debug_registers((DATA, 0, 0, 0, DR6_ONES, WRITES_0))
    bench.ring(0)
    bench.cpu.eip = bench.symbol("here")
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.arrival(3).frame[0] == bench.symbol("behind")
    assert bench.load(DATA) == (1,)


def test_there_is_no_dr5(engine: str) -> None:
    with pytest.raises(ValueError, match="DR5"):
        Bench(engine).cpu.set_debug_register(5, 0)
