"""What comes from outside: interrupt windows and shadows, and the NMI with its blocking (SDM vol. 3, 6.7 and 6.8)."""

from __future__ import annotations

import pytest

from hvproto.processor.processor import Stop
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_RF
from tests.support.bench import KERNEL_STACK, Bench

NEVER = 1 << 60
NMI = 2


def _open_at(bench: Bench, text: str, **registers: int) -> int:
    """How far into the code the processor first lets an external interrupt in."""
    bench.ring(0)
    bench.code(text)
    bench.set(**registers)
    bench.cpu.stop_when_open()
    assert bench.cpu.run(NEVER) is Stop.DEADLINE
    assert bench.cpu.eflags & EFLAGS_IF and not bench.cpu.in_interrupt_shadow
    return bench.cpu.eip - bench.symbol("start")


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("start: nop\nsti\nnop\ncli\nhlt", 3),  # a window of nothing: behind the NOP, before the CLI
        ("start: sti\nnop\nhlt", 2),
        ("start: push 0x202\npopfd\nnop\nhlt", 6),  # POPF has no shadow
        ("start: sti\nmov ax, ss\nmov ss, ax\nnop\nhlt", 4),  # the shadow of STI is over before the MOV
        ("start: mov ax, ss\nsti\nmov ss, ax\nnop\nhlt", 6),  # one shadow doesn't prolong another
    ],
)
def test_a_window_is_found_at_its_first_instruction(engine: str, text: str, offset: int) -> None:
    bench = Bench(engine)
    assert _open_at(bench, text) == offset


def test_no_window_no_stop(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code("start: mov ecx, 1000\nagain: sti\ncli\nloop again\nhlt")
    bench.cpu.stop_when_open()
    assert bench.cpu.run(NEVER) is Stop.HALT, "an STI before a CLI opens nothing"


def test_an_interrupt_ends_a_shadow(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code("start: sti\nnop\nhlt")
    assert bench.cpu.run(bench.cpu.now + 1) is Stop.DEADLINE and bench.cpu.in_interrupt_shadow
    bench.cpu.interrupt(0x50)
    assert not bench.cpu.in_interrupt_shadow
    assert bench.cpu.run(NEVER) is Stop.HALT
    arrived = bench.arrival(3)
    assert arrived.vector == 0x50 and arrived.frame == (bench.symbol("start") + 1, 0x08, 0x202)


def test_an_nmi_comes_with_if_clear_and_blocks_the_next_until_iret(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code("start: nop\nhlt\nhandler: mov ebx, 1\njmp next\nnext: iretd")
    bench.gate(NMI, target=bench.symbol("handler"))
    cpu = bench.cpu
    assert not cpu.nmi_blocked
    cpu.nmi()
    assert cpu.nmi_blocked and cpu.eip == bench.symbol("handler")
    assert cpu.run(cpu.now + 5) is Stop.DEADLINE
    assert cpu.nmi_blocked, "still in the handler"
    assert cpu.run(NEVER) is Stop.HALT
    assert not cpu.nmi_blocked, "IRET lets the next in"
    assert cpu.gpr(3) == 1 and cpu.esp == KERNEL_STACK


def test_an_interrupt_behind_iret_reports_the_resume_flag_that_it_loaded(engine: str) -> None:
    bench = Bench(engine)
    bench.ring(0)
    bench.code(f"start: push {0x202 | EFLAGS_RF:#x}\npush cs\npush there\niretd\nthere: nop\nhlt")
    bench.cpu.stop_when_open()
    assert bench.cpu.run(NEVER) is Stop.DEADLINE
    bench.cpu.interrupt(0x50)
    assert bench.cpu.run(NEVER) is Stop.HALT
    assert bench.arrival(3).frame == (bench.symbol("there"), 0x08, 0x202 | EFLAGS_RF)
