"""Who is asked before a SYSCALL or SYSENTER may have the processor stop there instead."""

from __future__ import annotations

import pytest

from hvproto.processor.engine import SystemCall
from hvproto.processor.processor import Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import LSTAR_MSR, STAR_MSR, SYSENTER_CS_MSR, SYSENTER_EIP_MSR, SYSENTER_ESP_MSR
from tests.support import long_mode as wide
from tests.support.bench import CODE0, CODE3, DATA3, KERNEL_STACK, NEVER, ORIGIN, SEGMENTS, STUBS, USER_STACK, Bench


@pytest.mark.parametrize("stepping", [0, 0x100])
def test_sysenter_stops_before_it_and_can_be_performed_after_all(engine: str, stepping: int) -> None:
    bench = Bench(engine)
    cpu = bench.cpu
    for number, value in ((SYSENTER_CS_MSR, CODE0), (SYSENTER_ESP_MSR, KERNEL_STACK), (SYSENTER_EIP_MSR, STUBS)):
        cpu.set_msr(number, value)
    asked: list[tuple[SystemCall, int]] = []
    answers = [True, False]

    def answer(call: SystemCall) -> bool:
        asked.append((call, cpu.eip))
        return answers[len(asked) - 1]

    cpu.on_system_call = answer
    bench.ring(3)
    bench.code("mov eax, 7\nhere: sysenter")
    here = bench.symbol("here")
    if stepping:
        cpu.eip = here
    cpu.eflags |= stepping
    assert cpu.run(NEVER) is Stop.TRAP
    assert (cpu.trapped_at, cpu.eip, cpu.cpl, cpu.esp) == (here, here, 3, USER_STACK)
    assert cpu.eflags & 0x100 == stepping
    assert cpu.run(NEVER) is Stop.HALT
    assert asked == [(SystemCall.SYSENTER, here)] * 2
    assert cpu.cpl == 0
    if not stepping:
        assert (cpu.eip, cpu.esp) == (STUBS + 1, KERNEL_STACK)


def test_syscall_stops_before_it_or_is_performed(engine: str) -> None:
    bench = Bench(engine)
    cpu = bench.cpu
    wide.build(bench)
    for setting, value in wide.LONG_SETTINGS.items():
        cpu.write_setting(setting, value)
    cpu.set_msr(STAR_MSR, CODE0 << 32)
    cpu.set_msr(LSTAR_MSR, wide.HIGH | STUBS)
    bench.code(".code64\nmov r9, 3\nhere: syscall")
    cpu.set_segments({SegmentRegister.CS: wide.WIDE_CODE3, SegmentRegister.SS: SEGMENTS[DATA3]})
    cpu.eip = wide.HIGH | ORIGIN
    here = wide.HIGH | bench.symbol("here")
    cpu.on_system_call = lambda call: call is SystemCall.SYSCALL
    assert cpu.run(NEVER) is Stop.TRAP
    assert (cpu.trapped_at, cpu.eip, cpu.cpl, cpu.gpr(9)) == (here, here, 3, 3)
    assert cpu.gpr(1) != here + 2, "nothing of it has been done"
    cpu.on_system_call = None
    assert cpu.run(NEVER) is Stop.HALT
    assert (cpu.eip, cpu.cpl, cpu.gpr(1)) == (wide.HIGH | STUBS + 1, 0, here + 2)
    assert cpu.code.selector == CODE0 != CODE3
