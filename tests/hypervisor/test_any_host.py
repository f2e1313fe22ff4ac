"""Hosts that know nothing of a guest, in every mode of the processor, decoupled wherever they happen to stand."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.errors import ImageError, MachineError
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.stay import ForHost, spare_frames
from hvproto.images.assembly import assemble, assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from tests.hypervisor.lodger import Lodging
from tests.hypervisor.whole_state import Stepper, differences, everything
from tests.support.command import ROOT
from tests.support.kernels import TICK, kernel

HOSTS = sorted((ROOT / "guests" / "modes").glob("*.asm"))
WELL = 1
VISITS = 80
CYCLES = 400
"""Of the guest's time at each visit: some ten of its exits."""


@cache
def image_of(path: Path) -> Image:
    return load_image(path)


@cache
def resident() -> Image:
    return assemble(Path(__file__).parent / "resident.asm")


def stepped(path: Path, engine: str, *, with_guest: bool) -> tuple[Lodging, int, dict[str, object], int]:
    """A host to its end, stopped at places that depend on a seed and nothing else, with a guest there or without."""
    run = Lodging(engine, host_memory=16 * MIB)
    run.load_host(image_of(path))
    if with_guest:
        run.add(resident())
    rng = random.Random(path.stem)
    left = [VISITS]

    def visit() -> None:
        if not with_guest or not left[0]:
            return
        left[0] -= 1
        before = everything(run.machine.processor)
        stay = run.run(CYCLES, ForHost.STANDS_STILL)
        assert stay.leave is Leave.TIME, stay
        assert differences(before, everything(run.machine.processor)) == []

    def stride() -> int:
        return rng.choice((0, 0, 0, 40, 400, 4000, 20_000))

    stepper = Stepper(run.machine, stride, visit)
    status = run.machine.run(40_000_000)
    return run, status, everything(run.machine.processor), stepper.steps


@pytest.mark.parametrize("path", HOSTS, ids=lambda path: path.stem)
def test_a_host_of_any_mode_does_not_notice(path: Path, engine: str) -> None:
    if engine == "portable" and path.stem == "interrupts":
        pytest.skip("it waits for the timer many times over: too slow on this engine")
    alone, status, state, steps = stepped(path, engine, with_guest=False)
    run, status_with, state_with, steps_with = stepped(path, engine, with_guest=True)
    assert (status, steps) == (status_with, steps_with) and status == WELL
    assert run.machine.debug_output == alone.machine.debug_output
    assert differences(state, state_with) == []
    size = 16 * MIB
    assert run.machine.ram.view[:size] == alone.machine.ram.view[:size]
    assert run.words("turns")[0] > 5, "the guest did its work meanwhile"
    assert run.printed.count(b".") == len(run.printed) > 5


COUNTING = """
        GATE 0x20, tick, 0x8e00
        SET_TIMER 250                   ; a tick every 100,000 cycles
        sti
1:      inc dword ptr [seen]
        cmp dword ptr [ticks], 16
        jb 1b
        PUTC 'k'
        mov al, 0
        out 0xf4, al
        hlt
"""


@pytest.mark.parametrize("for_host", [ForHost.PENDING, ForHost.RECOUPLE])
def test_interrupts_wait_or_end_the_stay(engine: str, for_host: ForHost) -> None:
    """The host's timer goes on while the guest stays; its interrupt comes afterwards, or at once."""
    if engine == "portable":
        pytest.skip("two minutes there; the other tests of this file run on both")
    run = Lodging(engine)
    run.load_host(kernel(COUNTING + TICK))
    run.add(resident())
    leaves = []

    def between(_limit: int) -> None:
        began = run.machine.processor.now
        leaves.append(run.run(350_000, for_host).leave)
        stayed = run.machine.processor.now - began
        if leaves[-1] is Leave.INTERRUPT:
            assert stayed < 101_000 and run.machine.board.interrupts.pending
        else:
            assert stayed >= 350_000

    assert run.machine.run(40_000_000, between) == WELL and run.machine.debug_output == b"k"
    assert (Leave.INTERRUPT in leaves) == (for_host is ForHost.RECOUPLE)
    raised = run.machine.board.pit.raised
    # A line that is raised while its interrupt waits counts once.
    assert 16 <= raised <= 18 if for_host is ForHost.RECOUPLE else raised > 40


def test_a_guest_runs_to_its_end_under_a_host_at_reset(engine: str) -> None:
    """Nobody has loaded any host: print and disk are served by Python."""
    run = Lodging(engine)
    run.add(load_image(ROOT / "guests" / "hello.asm"))
    stay = run.run_to_end()
    assert stay.status == 0 and b"hello" in run.printed.lower()
    again = run.run()
    assert again.leave is Leave.HALTED


def test_memory_that_the_host_was_told_nothing_of() -> None:
    machine = Machine(8 * MIB)
    image = assemble_text(".origin 0x100000\nstart: mov eax, [ebx + 8]\nmov [0x110000], eax\ncli\nhlt")
    machine.load(image, told_memory=4 * MIB)
    machine.run(1000)
    assert int.from_bytes(machine.ram.view[0x110000:0x110004], "little") == 3 * 1024, "multiboot's mem_upper, in KiB"
    frames = spare_frames(machine, 1024)
    assert frames == list(range(4 * MIB, 8 * MIB, PAGE_SIZE))
    with pytest.raises(MachineError, match="1025 spare frames sought, 1024 found"):
        spare_frames(machine, 1025)


def test_a_guest_that_does_not_fit_leaves_nothing_behind() -> None:
    run = Lodging()
    with pytest.raises(ImageError):
        run.add(assemble_text(".origin 0x700000\nnop"))
    assert run.hypervisor.guests == {} and run.hypervisor.images == []
    run.add(load_image(ROOT / "guests" / "hello.asm"))
    assert run.run_to_end().status == 0


def test_a_region_that_moves_while_the_host_has_the_processor(engine: str) -> None:
    """The host keeps its settings; the guest goes on with the region where it is now."""
    run = Lodging(engine, host_memory=16 * MIB)
    run.load_host(image_of(HOSTS[0]))
    run.add(resident())
    assert run.run(3000, ForHost.STANDS_STILL).leave is Leave.TIME
    before, turns, space = everything(run.machine.processor), run.words("turns")[0], run.guest.space
    old = space.region.base
    space.move_region(GVA(old - 4 * space.region.size))
    assert differences(before, everything(run.machine.processor)) == []
    assert run.run(CYCLES, ForHost.STANDS_STILL).leave is Leave.TIME
    assert run.words("turns")[0] > turns and space.region.base != old
    assert run.machine.run(40_000_000) == WELL
