"""Limits of the kit are in instructions: of whom, where they end, and that waiting uses none."""

from __future__ import annotations

import pytest

from hvproto.bundled import kernel_path
from hvproto.errors import BadInput, LimitReached, MachineError
from hvproto.events import GuestHalted
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.clock import CYCLES_PER_PIT_TICK, CYCLES_PER_SECOND
from hvproto.testing import Assembler, BareMachine, Hv, NotSeen, bare
from hvproto.testing.bare import TIME
from tests.support.kernels import TICK, kernel, word

PERIOD = 11932 * CYCLES_PER_PIT_TICK
"""Of a timer of 100 Hz, in cycles."""
IDLE = kernel(f"GATE 0x20, tick, 0x8e00\nSET_TIMER 11932\nagain: sti\nhlt\njmp again\n{TICK}")
"""At each tick it executes a dozen instructions."""
BLOCKS = "start: mov ecx, 7\nagain: inc eax\ninc eax\ninc eax\ninc eax\njmp again"
"""One of six instructions, then of five."""


def test_it_ends_at_the_first_block_at_or_after_so_many(machine: BareMachine, assemble: Assembler) -> None:
    with pytest.raises(LimitReached, match="after the limit of 1,000 instructions") as caught:
        machine.execute(assemble(BLOCKS), 1000)
    assert (caught.value.limit, caught.value.unit) == (1000, "instructions")
    assert machine.processor.instructions == 1001
    for limit, count in ((5, 1006), (1, 1011), (6, 1021)):
        with pytest.raises(LimitReached):
            machine.run(limit)
        assert machine.processor.instructions == count, "from now"
    with pytest.raises(LimitReached) as caught:
        machine.run(cycles=60)
    assert caught.value.unit == "cycles" and machine.processor.instructions == 1021 + 50


def test_repeated_rounds_are_time_and_no_instructions(machine: BareMachine, assemble: Assembler) -> None:
    body = "start: mov edi, 0x180000\nmov ecx, 3000\nrep stosb\njmp start"
    with pytest.raises(LimitReached):
        machine.execute(assemble(body), 40)
    assert machine.processor.instructions == 40
    assert machine.processor.now > 10 * 2 * 3000


def test_waiting_uses_none(machine: BareMachine) -> None:
    """A guest that does a little at each tick of 100 Hz gets its instructions, and needs some seconds for them."""
    machine.load(IDLE)
    with pytest.raises(LimitReached) as caught:
        machine.run(3000)
    assert caught.value.unit == "instructions"
    assert 3000 <= machine.processor.instructions < 3010
    assert machine.processor.now > 2 * CYCLES_PER_SECOND
    assert word(machine, "ticks") == machine.processor.now // PERIOD


def test_what_nothing_wakes_has_ended(machine: BareMachine) -> None:
    """The timer is masked: no limit has to be reached."""
    machine.load(kernel("mov al, 0xff\nout 0x21, al\nSET_TIMER 50\nsti\nhlt\nhlt"))
    assert machine.run(1_000_000) == 0


def test_without_a_limit_waiting_ends_after_a_second(machine: BareMachine) -> None:
    machine.load(IDLE)
    with pytest.raises(LimitReached) as caught:
        machine.run()
    assert (caught.value.limit, caught.value.unit) == (TIME, "cycles")
    assert machine.processor.now == TIME


def test_of_a_text_that_is_waited_for(machine: BareMachine, assemble: Assembler) -> None:
    machine.load(assemble("start: mov al, 0x41\nmov ecx, 5000\nagain: loop again\nout 0xe9, al\nhere: jmp here"))
    with pytest.raises(LimitReached, match="5,000 instructions"):
        machine.run_until("A", 5000)
    machine.run_until("A", 500_000)
    began = machine.processor.instructions
    with pytest.raises(LimitReached):
        machine.run_until("B", 1000)
    assert machine.processor.instructions == began + 1000
    machine.load(assemble("start: cli\nhlt"))
    with pytest.raises(MachineError, match="without 'B'"):
        machine.run_until("B", 1000)


@pytest.mark.parametrize("limit", [0, -5])
def test_what_is_no_limit(machine: BareMachine, hv: Hv, limit: int) -> None:
    for run in (machine.run, hv.run):
        with pytest.raises(BadInput, match="at least one instruction"):
            run(limit)
    with pytest.raises(BadInput, match="at least one instruction"), hv.wait_for(GuestHalted, limit=limit):
        pass


@pytest.mark.plan("mirrored", "direct", "application")
@pytest.mark.limit(300_000)
def test_of_all_worlds_together(hv: Hv) -> None:
    """`run` without a limit of its own has what waits have left of the run's."""
    processor = hv.machine.processor
    with pytest.raises(NotSeen, match="before 200,000 instructions passed"), hv.wait_for(GuestHalted, limit=200_000):
        pass
    assert 200_000 <= processor.instructions < 200_100
    with pytest.raises(LimitReached, match="300,000 instructions"):
        hv.run()
    assert 300_000 <= processor.instructions < 300_100


def test_a_limit_of_a_run_is_from_now(hv: Hv) -> None:
    processor = hv.machine.processor
    with pytest.raises(NotSeen), hv.wait_for(GuestHalted, limit=250_000):
        pass
    began = processor.instructions
    with pytest.raises(LimitReached):
        hv.run(limit=20_000)
    assert began + 20_000 <= processor.instructions < began + 20_100


def test_both_engines_end_at_the_same_instruction(host: Image, both_engines: tuple[str, str]) -> None:
    ends = []
    for name in both_engines:
        hv = Hv(host, load_image(kernel_path("ptwrites")), engine=name, limit=260_000)
        with pytest.raises(LimitReached) as caught:
            hv.run()
        ends.append((hv.now, hv.machine.processor.instructions, str(caught.value), len(hv.events)))
    assert ends[0] == ends[1]


def test_a_wait_without_a_limit_ends_after_a_time(host: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "TIME", 20_000_000)
    hv = Hv(host, IDLE)
    with pytest.raises(NotSeen, match="before 20,000,000 cycles passed"), hv.wait_for(GuestHalted):
        pass
    assert 20_000_000 <= hv.now < 20_100_000
