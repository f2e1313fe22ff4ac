"""Time is charged by a block's own code, and a call that does the same: no difference but of speed."""

from __future__ import annotations

import ctypes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unicorn import UC_ARCH_X86, UC_HOOK_BLOCK, UC_MODE_32, Uc
from unicorn import x86_const as x86

from hvproto.processor import block_beginnings
from hvproto.processor import control_block as block
from hvproto.processor.native import NativeEngine
from hvproto.processor.processor import Processor, Stop
from tests.processor.test_differential import ALLOWANCE, history
from tests.support.bench import Bench
from tests.support.random_programs import programs

LOOP = b"\x49\x75\xfd\xf4"
"""again: dec ecx; jnz again; hlt"""


def _by_hook(bench: Bench) -> None:
    engine = bench.cpu.engine
    assert isinstance(engine, NativeEngine)
    engine.charge_by_hook(True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs, st.lists(st.sampled_from((1, 2, 7, 50, 1000, ALLOWANCE)), min_size=1, max_size=4), st.booleans())
def test_stops_registers_time_and_ram_are_those_of_a_hook_in_each_block(
    slots: list[bytes], slices: list[int], interrupts: bool
) -> None:
    inline, bench = history("native", slots, slices, interrupts)
    called, other = history("native", slots, slices, interrupts, changed=_by_hook)
    assert inline == called
    assert bytes(bench.view) == bytes(other.view)


def _loop(count: int, *, by_hook: bool) -> tuple[Processor, tuple[int, int]]:
    """A loop that has ended, and the linear address and size of the last block that BLOCK was called for."""
    bench = Bench("native")
    if by_hook:
        _by_hook(bench)
    bench.view[0x1000 : 0x1000 + len(LOOP)] = LOOP
    bench.cpu.set_gpr(1, count)
    bench.cpu.eip = 0x1000
    assert bench.cpu.run(1 << 40) is Stop.HALT
    engine = bench.cpu.engine
    assert isinstance(engine, NativeEngine)
    start = ctypes.c_uint64.from_address(engine.control_address + block.CTL_LOOKED_START).value
    size = ctypes.c_uint32.from_address(engine.control_address + block.CTL_LOOKED_SIZE).value
    return bench.cpu, (start, size)


def test_blocks_of_a_loop_charge_their_time_without_a_call() -> None:
    assert block_beginnings.install(), "this build of Unicorn has its table where it is looked for"
    cpu, looked = _loop(100_000, by_hook=False)
    assert cpu.now == 100_000 * 3 + 1
    assert looked == (0x1000, 3), "only the run's first block asked whether to go on"
    cpu, _ = _loop(100_000, by_hook=True)
    assert cpu.now == 100_000 * 3 + 1


def test_an_instance_of_somebody_elses_is_left_alone() -> None:
    assert block_beginnings.install()
    uc = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 0x2000)
    uc.mem_write(0x1000, LOOP)
    entered: list[tuple[int, int]] = []
    uc.hook_add(UC_HOOK_BLOCK, lambda _uc, address, size, _data: entered.append((address, size)))
    uc.reg_write(x86.UC_X86_REG_ECX, 50)
    uc.emu_start(0x1000, 0)
    assert entered == [(0x1000, 3)] * 50 + [(0x1003, 1)]
