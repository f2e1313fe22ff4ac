"""Stores that wait, and exits handled quickly, against the ways that they are shortcuts of."""

from __future__ import annotations

import random

import pytest

from hvproto.addresses import GPA, PAGE_SIZE
from hvproto.bundled import find
from hvproto.hypervisor.quick_exits import QuickExits
from hvproto.images.assembly import assemble_text
from hvproto.images.load import load_image
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.processor import Processor, Stop
from tests.hypervisor.stage import Stage

TABLE, PART = 0x4000, 0x6000
LIMIT = 4_000_000


def _stores(seed: int) -> str:
    """Stores of all sizes to a table's page and to one of which a part matters, some across entries."""
    draw = random.Random(seed)
    lines = []
    for _ in range(200):
        size = draw.choice((1, 2, 4))
        at = draw.choice((TABLE, PART)) + draw.randrange(64)
        value = draw.choice((0, 1, 0x21, 0x67, 0x0101_0101, draw.getrandbits(32))) & (1 << 8 * size) - 1
        name = {1: "byte", 2: "word", 4: "dword"}[size]
        lines.append(f"mov {name} ptr [{at:#x}], {value:#x}")
    return "\n".join([*lines, "hlt"])


@pytest.mark.parametrize("entry_size", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_both_engines_defer_the_same_stores(seed: int, entry_size: int) -> None:
    image = assemble_text(_stores(seed), "<stores>")
    found = []
    for engine in ("native", "portable"):
        ram = Ram(MIB).view
        processor = Processor(ram, engine)
        code = image.segments[0].data
        ram[0x20000 : 0x20000 + len(code)] = bytes(code)
        deferred = processor.engine.deferred
        for page in (TABLE, PART):
            processor.engine.protect(page, PAGE_SIZE, on=True)
        deferred.pages[TABLE // PAGE_SIZE] = entry_size
        deferred.watch_part(PART + 16, PART + 32)
        others: list[tuple[int, int]] = []
        processor.on_protected_store = lambda at, size, others=others: others.append((at, size))
        processor.eip = 0x20000
        while processor.run(1 << 40) is not Stop.HALT:
            pass
        found.append((deferred.take(), others, bytes(ram[TABLE : PART + PAGE_SIZE])))
        assert not deferred.waits
    assert found[0] == found[1]
    assert found[0][0] and found[0][1]


def test_ranges_cover_what_would_come_one_by_one() -> None:
    ram = Ram(MIB).view
    deferred = Processor(ram, "portable").engine.deferred
    deferred.pages[4] = deferred.pages[9] = 4
    for at in (0x4010, 0x9004, 0x4008, 0x9100):
        assert deferred.offer(at, 4, 1)
    assert deferred.take_ranges() == [(0x4008, 12, None), (0x9004, 0x100, None)]
    assert deferred.take() == []
    for number in range(200):  # from page to page and back
        for at in (0x9004 + 8 * number, 0x4100 - 4 * number % 32):
            assert deferred.offer(at, 4, 1)
    assert deferred.take_ranges() == [(0x40E4, 32, None), (0x9004, 8 * 200 - 4, None)]


@pytest.mark.parametrize("name", ["guest", "ptwrites", "selfmap"])
def test_quick_exits_tell_the_same_story_as_the_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for enabled in (True, False):
        stage = Stage(load_image(str(find(name).path)), "native", memory=16 * MIB, ram_size=32 * MIB, pool_pages=1024)
        stage.guest.quick.enabled = enabled
        status = stage.run(LIMIT)
        assert bool(stage.guest.quick.count) == enabled
        runs.append((status, bytes(stage.output), stage.events, stage.guest_ram()))
    assert runs[0] == runs[1]


def test_a_page_of_the_guests_table_is_marked_and_the_regions_is_not() -> None:
    """While the guest runs: stores to a leaf table may wait, unless it maps where the region is."""
    stage = Stage(load_image(str(find("ptwrites").path)), "native", memory=16 * MIB, ram_size=32 * MIB, pool_pages=1024)
    seen: set[bool] = set()
    plain = QuickExits.resuming

    def look() -> None:
        space = stage.guest.space
        space.deferral.update(space.mirror)
        region = (space.region.base >> 12, (space.region.base >> 12) + space.region.pages)
        covering = set(space.tables.tables_of(*region, (space.mirror,)))
        for page in space.monitor.watched:
            frame = stage.memory.to_host(page)
            assert frame is not None
            mark = space.tables.deferrable(page, space.monitor.users(page), space.mirror, region)
            assert mark == 0 or stage.machine.processor.engine.deferred.pages[frame >> 12] == mark
            if page in covering and space.mirror.mode.cr3 == page:
                assert mark == 0
            seen.add(bool(mark))

    stage.guest.quick.resuming = lambda: (look(), plain(stage.guest.quick))[1]  # type: ignore[method-assign]
    stage.run(LIMIT)
    assert seen == {True, False}
    assert GPA(0) not in stage.guest.space.monitor.watched
