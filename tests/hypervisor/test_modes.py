"""The sample kernel of every mode, deprivileged: it prints, leaves in memory and ends with what it does alone.

Among them: real mode, 16- and 32-bit protected mode, virtual-8086 mode, hardware tasks, call gates, PAE, long mode and
compatibility mode, SYSCALL, SYSENTER, single steps and breakpoints. Each kernel checks what it sees by itself, too.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.ram import MIB
from tests.hypervisor.hosted import Run
from tests.hypervisor.stage import Bare, Stage, bare
from tests.support.command import ROOT

KERNELS = sorted((ROOT / "guests" / "modes").glob("*.asm"))
MEMORY, RAM, POOL_PAGES = 16 * MIB, 64 * MIB, 2048
LIMIT = 40_000_000
"""Cycles; each needs less than half of it, and one that hangs ends with an error."""
ALL_WELL = 2 * 0 + 1
SLOW = {("interrupts", "portable")}
"""It waits for the timer many times over: 20 seconds for this engine, 1 for the other."""


@cache
def image_of(path: Path) -> Image:
    return load_image(path)


@cache
def alone(path: Path) -> Bare:
    return bare(image_of(path), memory=MEMORY, limit=LIMIT)


def test_there_is_a_kernel_for_every_mode() -> None:
    modes = {"real", "protected16", "protected32", "v86", "tasks", "paging2", "pae", "long", "compat"}
    assert modes <= {path.stem for path in KERNELS}


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_deprivileged_kernel_comes_to_what_it_comes_to_alone(path: Path, engine: str) -> None:
    if (path.stem, engine) in SLOW:
        pytest.skip("takes too long on this engine")
    expected = alone(path)
    stage = Stage(image_of(path), engine, memory=MEMORY, pool_pages=POOL_PAGES, ram_size=RAM)
    status = stage.run(LIMIT)
    assert stage.output.decode("latin-1") == expected.machine.debug_output.decode("latin-1"), stage.error
    assert (status, stage.error) == (expected.status, None) == (ALL_WELL, None)
    ours, theirs = stage.guest_ram(), expected.guest_ram()
    differing = [at for at in range(MEMORY) if ours[at] != theirs[at]] if ours != theirs else []
    assert [(hex(at), image_of(path).symbols.name_at(at)) for at in differing[:8]] == []
    assert stage.machine.debug_output == b"", "a port of the guest's reached the host's devices"
    stage.check_host_untouched()


@pytest.mark.parametrize("name", ["real", "v86", "tasks", "paging2", "long", "compat"])
def test_wherever_the_region_is(name: str) -> None:
    """The region moves at every exit, and the guest of whatever mode comes to the same."""
    (path,) = (path for path in KERNELS if path.stem == name)
    stage = Stage(image_of(path), memory=MEMORY, pool_pages=POOL_PAGES, ram_size=RAM)
    places = stage.move_at_every_exit()
    assert stage.run(LIMIT) == ALL_WELL, stage.error
    assert len(set(places)) > 3
    assert stage.output == alone(path).machine.debug_output
    assert stage.guest_ram() == alone(path).guest_ram()
    stage.check_host_untouched()


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_under_the_bundled_host(path: Path, plan: str) -> None:
    """The host prints each character, and counts each of its own ticks, whatever mode its guest is in."""
    run = Run(image_of(path), plan, LIMIT)
    assert run.output == alone(path).machine.debug_output.decode("latin-1"), run.error
    assert (run.status, run.error) == (ALL_WELL, None)
    run.check_the_host_ended_well(worked=False)
