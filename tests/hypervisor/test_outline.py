"""What the events say of the guest's mappings, against the guest's own page tables at that very moment."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from hvproto import events
from hvproto.bundled import kernel_path
from hvproto.events import Event, EventBus
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.hypervisor.outline import MOST_RUNS, joined
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.load import load_image
from hvproto.processor.paging import FOUR_LEVEL, PS, P

PAGES_32, PAGES_48 = 1 << 20, 1 << 36


def mapped(guest: MirroredGuest) -> Iterator[tuple[int, int]]:
    """(first page, pages) of every present entry that maps memory, by a walk of ours."""
    mode, read = guest.cpu.paging_mode, guest.cpu.read_physical
    fmt = mode.format
    if fmt is None:
        yield 0, guest.memory.size >> 12
        return

    def below(level: int, table: int, base: int) -> Iterator[tuple[int, int]]:
        shift, bits = fmt.levels[level]
        for index in range(1 << bits):
            entry = read(table + index * fmt.entry_size, fmt.entry_size)
            if entry is None or not entry & P:
                continue
            linear = base | index << shift
            if level == fmt.depth - 1 or (entry & PS and mode.allows_large(fmt, level)):
                yield linear >> 12, 1 << shift - 12
            else:
                yield from below(level + 1, entry & fmt.frame_mask, linear)

    yield from below(0, mode.cr3 & fmt.root_mask, 0)


EVERY = 8
"""So many looks are there for each whose mappings are held against the guest's tables."""


@pytest.mark.parametrize("name", ["guest", "guest64"])
def test_each_look_has_what_the_tables_map_and_never_the_region(name: str, engine: str) -> None:
    if engine == "portable":
        pytest.skip("half a minute there; test_twins holds the engines against each other")
    session = Session(
        load_image(kernel_path("host")), [load_image(kernel_path(name))], Plan.parse("mirrored"), bus=EventBus(),
        engine=engine,
    )  # fmt: skip
    looks: list[events.GuestMappings] = []
    places: list[int] = []

    def on_look(event: Event) -> None:
        assert isinstance(event, events.GuestMappings)
        guest = session.hypervisor.guests[0]
        assert isinstance(guest, MirroredGuest)
        looks.append(event)
        places.append(event.region)
        assert event.region == guest.region.base and event.pages == guest.region.pages
        wide = guest.cpu.paging_mode.format is FOUR_LEVEL
        assert event.end == (PAGES_48 if wide else PAGES_32) << 12
        covered = [(address >> 12, (address >> 12) + pages) for address, pages in event.runs]
        assert covered == sorted(covered) and len(covered) <= MOST_RUNS
        assert all(one[1] < other[0] for one, other in pairwise(covered))
        if len(looks) % EVERY:
            return  # each of them walks all of the guest's tables
        starts = [start for start, _ in covered]
        for first, pages in mapped(guest):
            at = bisect_right(starts, first) - 1
            assert at >= 0 and first + pages <= covered[at][1], hex(first << 12)

    session.bus.subscribe(on_look, events.GuestMappings)
    assert session.run() == 0
    assert len(looks) > 20 and len(set(places)) > 3
    largest = [max(pages for _, pages in look.runs) for look in looks]
    assert max(largest) > largest[0]  # they close in


def test_what_is_joined_is_what_is_near() -> None:
    starts = np.cumsum(np.arange(1, 1000) * 2)
    taken = np.stack((starts, starts + 1), axis=1)
    assert np.array_equal(joined(taken, int(starts[-1]) + 50, most=2000), taken)
    few = joined(taken, 4, most=10)  # 3 to 5 is the narrowest gap of all but one, and the region is in it
    assert len(few) == 10 and few[0].tolist() == [2, 3] and few[-1].tolist() == taken[-1].tolist()
    assert (few[1:, 0] - few[:-1, 1]).tolist()[1:] == sorted((few[1:, 0] - few[:-1, 1]).tolist()[1:])


def test_of_very_many_changes_there_are_few_looks() -> None:
    from hvproto.hypervisor.outline import Outline

    class Space:
        pages = PAGES_32

        def taken(self) -> np.ndarray:
            return np.array([[0, 1]], np.int64)

    bus, looks = EventBus(), []
    bus.subscribe(looks.append, events.GuestMappings)
    outline = Outline(bus)
    for change in range(100_000):
        outline.show(change, Space(), 0x5000, 6, 1)
    assert 300 < len(looks) < 700 and [look.at for look in looks[:5]] == [0, 1, 2, 3, 4]
