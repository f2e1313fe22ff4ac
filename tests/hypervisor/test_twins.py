"""Twin runs: a kernel alone, mirrored and direct; wherever the region is and however often it moves; on both engines."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import pytest

from hvproto.bundled import kernel_path
from hvproto.events import EventBus
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.disk_image import bundled_disk
from hvproto.machine.ram import MIB
from tests.hypervisor.stage import DISK, Bare, Stage, bare, move_at_every_exit

MEMORY = 16 * MIB
LIMIT = 1_000_000_000
SMALL = ("hello", "selfmap", "ptwrites", "spin")
ALL = (*SMALL, "guest")
MEASURES_TIME = {"guest": {"spins"}}
"""Variables of the kernels that count how long something took."""


@cache
def image_of(name: str) -> Image:
    return load_image(str(kernel_path(name)))


@cache
def alone(name: str) -> Bare:
    return bare(image_of(name), memory=MEMORY, limit=LIMIT, disk=bundled_disk())


@cache
def hosted(name: str, plan: str, engine: str | None = None) -> tuple[Session, list[str]]:
    lines: list[str] = []
    bus = EventBus()
    bus.subscribe(lambda event: lines.append(event.to_json()))
    session = Session(load_image(str(kernel_path("host"))), [image_of(name)], Plan.parse(plan), bus=bus, engine=engine)
    assert session.run(LIMIT) == 0
    return session, lines


def differing_symbols(image: Image, one: bytes, other: bytes) -> set[str]:
    """What differs in two memories, by the names of the kernel's variables."""
    pages = [at for at in range(0, len(one), 4096) if one[at : at + 4096] != other[at : at + 4096]]
    places = [at for page in pages for at in range(page, page + 4096) if one[at] != other[at]]
    return {re.sub(r"\+0x[0-3]$", "", image.symbols.name_at(at) or hex(at)) for at in places}


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
@pytest.mark.parametrize("name", ALL)
def test_a_guest_comes_to_what_it_comes_to_alone(name: str, plan: str) -> None:
    """Output, and all 16 MiB of memory: page tables with their A and D bits, descriptor tables, stacks, everything."""
    session, _ = hosted(name, plan)
    (guest,) = session.guests
    assert guest.status == 0 and guest.error is None
    assert guest.output == alone(name).output == session.machine.serial_output
    memory = bytes(session.machine.ram.view[:MEMORY])
    differing = differing_symbols(image_of(name), alone(name).guest_ram(), memory)
    assert differing <= MEASURES_TIME.get(name, set())


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
@pytest.mark.parametrize("name", ALL)
def test_the_host_saw_nothing(name: str, plan: str) -> None:
    session, _ = hosted(name, plan)
    said = re.search(rb"ticks=(\d+) page_faults=\d+ worker=(\d+) exit=0\n$", session.machine.debug_output)
    assert said is not None
    assert int(said[1]) == session.machine.board.pit.raised, "the host lost a tick"
    if name in ("spin", "guest"):
        assert int(said[2]) > 0, "its other process made no progress"


@pytest.mark.parametrize("name", ALL)
def test_the_region_is_moved_at_every_exit(name: str, engine: str) -> None:
    if name == "guest" and engine == "portable":
        pytest.skip("half a minute there")
    size = MEMORY if name == "guest" else 4 * MIB
    twin = alone(name) if size == MEMORY else bare(image_of(name), engine, memory=size, limit=LIMIT)
    stage = Stage(
        image_of(name), engine, memory=size, ram_size=size + 16 * MIB, pool_pages=1500,
        disk=bundled_disk() if size == MEMORY else DISK,
    )  # fmt: skip
    places = move_at_every_exit(stage.guest)
    assert stage.run(LIMIT) == 0
    stage.check_host_untouched()
    assert len(places) > 30 and len(set(places)) > 5
    assert all(one != other for one, other in pairwise(places))
    assert stage.output == twin.output
    assert differing_symbols(image_of(name), twin.guest_ram(), stage.guest_ram()) <= MEASURES_TIME.get(name, set())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("seed", [2, 3])
def test_scattered_memory_makes_no_difference(name: str, seed: int) -> None:
    twin = bare(image_of(name), memory=4 * MIB, limit=LIMIT)
    stage = Stage(image_of(name), memory=4 * MIB, seed=seed, ram_size=12 * MIB)
    assert not stage.memory.is_identity
    assert stage.run(LIMIT) == 0
    stage.check_host_untouched()
    assert stage.output == twin.output and stage.guest_ram() == twin.guest_ram()


@pytest.mark.parametrize("name, plan", [("selfmap", "mirrored"), ("spin", "mirrored"), ("ptwrites", "direct")])
def test_two_runs_are_identical(name: str, plan: str) -> None:
    _, first = hosted(name, plan)
    hosted.cache_clear()
    _, second = hosted(name, plan)
    assert first == second and len(first) > 100


@pytest.mark.parametrize("name", SMALL)
def test_both_engines_tell_the_same_story(name: str, both_engines: tuple[str, str]) -> None:
    (native, events), (portable, others) = (hosted(name, "mirrored", engine) for engine in both_engines)
    assert events == others
    assert bytes(native.machine.ram.view) == bytes(portable.machine.ram.view)
