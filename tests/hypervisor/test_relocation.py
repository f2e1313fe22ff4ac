"""Holes, and where the policies put the region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvproto.addresses import GVA, HPA, PAGE_SIZE
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.relocation import (
    Fixed,
    HighestHole,
    Move,
    NoHole,
    RegionFixed,
    SuggestionRefused,
    find_hole,
    first_conflict,
)
from hvproto.hypervisor.view import View, canonical
from hvproto.processor.paging import PagingMode
from hvproto.processor.settings import CR0_PE, CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA, EFER_LME

PAGES = 5

_ranges = st.lists(
    st.tuples(st.integers(0, 0xFFFFF), st.sampled_from((1, 2, 3, 5, 9, 1024, 4096, 200_000))), max_size=12
)


def _tables(ranges: list[tuple[int, int]], pae: bool) -> tuple[GuestMemory, PagingMode, bytearray]:
    """Tables that map whole runs of pages (to frame 0); and a bytearray with 1 for each mapped page."""
    size, entry = (8, 512) if pae else (4, 1024)
    mapped = bytearray(1 << 20)
    for first, count in ranges:
        mapped[first : first + count] = b"\1" * len(mapped[first : first + count])
    ram = bytearray(6 << 20)
    tables = 0x10000

    def put(at: int, value: int) -> None:
        ram[at : at + size] = value.to_bytes(size, "little")

    full = tables
    tables += PAGE_SIZE
    for index in range(entry):
        put(full + index * size, 3)
    for slot in range((1 << 20) // entry):
        pages = mapped[slot * entry : (slot + 1) * entry]
        if not any(pages):
            continue
        if all(pages) and slot % 3 == 0:
            table = 0x83  # a large page
        elif all(pages):
            table = full | 3
        else:
            table = tables | 3
            for index, there in enumerate(pages):
                put(tables + index * size, 3 if there else 2)
            tables += PAGE_SIZE
        root = 0x1000 if not pae else 0x2000 + (slot >> 9) * PAGE_SIZE
        put(root + (slot & entry - 1) * size, table)
    if pae:
        for index in range(4):
            put(0x1000 + index * 8, 0x2000 + index * PAGE_SIZE | 1)
    memory = GuestMemory(memoryview(ram), [HPA(n * PAGE_SIZE) for n in range(len(ram) // PAGE_SIZE)])
    return memory, PagingMode(CR0_PE | CR0_PG, 0x1000, CR4_PAE if pae else CR4_PSE, 0), mapped


@settings(max_examples=60, deadline=None)
@given(_ranges, st.integers(1, 40), st.booleans())
def test_the_hole_is_free_and_the_highest(ranges: list[tuple[int, int]], pages: int, pae: bool) -> None:
    memory, mode, mapped = _tables(ranges, pae)
    usable = mapped[: (1 << 20) - 1]  # the last page stays free, and so does page 0
    usable[0] = 1
    expected = usable.rfind(bytes(pages))
    if expected >= 0:
        assert find_hole(FreeSpace(mode, memory), pages) == expected << 12
    else:
        with pytest.raises(NoHole):
            find_hole(FreeSpace(mode, memory), pages)


@pytest.mark.parametrize("free", [0, 1, 4])
def test_no_hole_says_how_much_was_sought_and_found(free: int) -> None:
    ranges = [(0, 0x80000), (0x80000 + free, 0x80000 - free)]
    memory, mode, _ = _tables(ranges, pae=False)
    with pytest.raises(NoHole) as caught:
        find_hole(FreeSpace(mode, memory), PAGES)
    assert (caught.value.pages_sought, caught.value.pages_found) == (PAGES, free)


def test_a_hole_without_paging() -> None:
    memory = GuestMemory(memoryview(bytearray(0x8000)), [HPA(n * PAGE_SIZE) for n in range(8)])
    assert find_hole(FreeSpace(PagingMode(0, 0, 0, 0), memory), 5) == 0xFFFF_F000 - 5 * PAGE_SIZE


def _space(*ranges: tuple[int, int]) -> FreeSpace:
    memory, mode, _ = _tables(list(ranges), pae=False)
    return FreeSpace(mode, memory)


def test_the_default_policy_keeps_away_from_late_conflicts() -> None:
    """A guest that always maps where the region is, and unmaps it again, meets no region that comes back."""
    space = _space()
    history: list[Move] = []
    place = find_hole(space, PAGES)
    for _ in range(16):
        conflict = GVA(place + PAGE_SIZE)
        new = find_hole(space, PAGES, history=[*history, Move(place, GVA(0), conflict)])
        history.append(Move(place, new, conflict))
        place = new
        assert all(abs(place - move.conflict) >= 1 << 20 for move in history)
        assert all(abs(place + PAGES * PAGE_SIZE - move.conflict) >= 1 << 20 for move in history)
    history += [Move(place, place, GVA(0x1000_0000))] * 16
    assert find_hole(space, PAGES, history=history) == find_hole(space, PAGES), "what is long ago is forgotten"


def test_a_place_of_a_conflict_is_better_than_none() -> None:
    space = _space((0, 0x80000), (0x80000 + PAGES, 0x80000 - PAGES))
    only = GVA(0x8000_0000)
    assert find_hole(space, PAGES) == only
    assert find_hole(space, PAGES, history=[Move(only, only, only)]) == only


def test_a_fixed_region_does_not_move() -> None:
    gva = GVA(0x8000_0000)
    assert find_hole(_space(), PAGES, Fixed(gva)) == gva
    with pytest.raises(RegionFixed) as caught:
        find_hole(_space((0x80003, 1)), PAGES, Fixed(gva))
    assert (caught.value.gva, caught.value.pages_sought, caught.value.pages_found) == (gva, PAGES, 3)
    assert isinstance(caught.value, NoHole)


class Stubborn:
    """Suggests what it likes."""

    def __init__(self, place: int) -> None:
        self.place = place

    def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA | None:
        return GVA(self.place)


@pytest.mark.parametrize("place", [0, 0x8000_2000, 0x7FFF_F000, 0x4000_0010, 0xFFFF_C000, 0xFFFF_F000, 1 << 32, -4096])
def test_what_is_not_free_is_refused_by_name(place: int) -> None:
    with pytest.raises(SuggestionRefused, match="Stubborn") as caught:
        find_hole(_space((0x80002, 1)), PAGES, Stubborn(place))
    assert caught.value.gva == place and caught.value.pages == PAGES
    assert find_hole(_space((0x80002, 1)), PAGES, Stubborn(0x8000_3000)) == 0x8000_3000


def test_holes_of_a_48_bit_space_are_canonical() -> None:
    memory = GuestMemory(memoryview(bytearray(0x8000)), [HPA(n * PAGE_SIZE) for n in range(8)])
    space = FreeSpace(PagingMode(CR0_PE | CR0_PG, 0x1000, CR4_PAE, EFER_LMA | EFER_LME), memory)
    half = (1 << 35) - 1
    assert list(space.holes()) == [(0xFFFF_8000_0000_0000, half), (0x1000, half - 1)]
    assert find_hole(space, PAGES) == 0xFFFF_FFFF_FFFF_F000 - PAGES * PAGE_SIZE
    for refused in (0x7FFF_FFFF_F000, 0x7FFF_FFFF_B000, 1 << 47, 0xFFFF_7FFF_FFFF_F000, 0xFFFF_FFFF_FFFF_F000, 0):
        with pytest.raises(SuggestionRefused):
            find_hole(space, PAGES, Stubborn(refused))
    assert find_hole(space, PAGES, Stubborn(0xFFFF_8000_0000_0000)) == 0xFFFF_8000_0000_0000
    assert find_hole(space, PAGES, Stubborn(0x1000)) == 0x1000


def test_the_policy_says_none_where_there_is_none() -> None:
    space = _space((0, 1 << 20))
    assert HighestHole().suggest(space, 1, []) is None and space.widest() == (0, 0)
    with pytest.raises(NoHole) as caught:
        find_hole(space, 1)
    assert (caught.value.pages_sought, caught.value.pages_found) == (1, 0)


@pytest.mark.parametrize(
    ("base", "conflict"), [(0xFFFF_8000_0000_0000, True), (0xFFFF_B000, True), (0xFFFF_A000, False)]
)
def test_a_place_beyond_4_gib_does_not_do_for_32_bits(base: int, conflict: bool) -> None:
    """Under a 64-bit root the region was up there; then the guest loaded one of another format."""
    ram = memoryview(bytearray(0x20000))
    memory = GuestMemory(ram, [HPA(n * PAGE_SIZE) for n in range(8)])
    pool = Pool(ram, [HPA(n * PAGE_SIZE) for n in range(8, 32)])
    mirror = Mirror(ram, pool, memory, PagingMode(CR0_PE | CR0_PG, 0x1000, CR4_PSE, 0))
    expected = base if conflict else None
    assert first_conflict(mirror, base, PAGES * PAGE_SIZE, base, PAGES * PAGE_SIZE) == expected
    mirror.clear_region(base, PAGES)
    assert mirror.guest_page(0xFFFF_8000_0000_0000) is None and not list(mirror.kernel.entries())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((1, 5, 40)), st.integers(0x70000, 0xFFFFF), st.booleans()), max_size=25),
    st.booleans(),
)
def test_a_hole_that_is_remembered_is_what_a_search_finds(steps: list[tuple[int, int, bool]], high: bool) -> None:
    """Pages come and go, also at the hole's edges, while one `FreeSpace` is asked again and again."""
    memory, mode, mapped = _tables([(0x70000, 0x8F000)] if high else [(0x70001, 0x800), (0xFFE00, 0x100)], pae=False)
    full = {number: 0x200000 + (number - 0x1C0) * PAGE_SIZE for number in range(0x1C0, 0x400)}
    for number, table in full.items():  # every table is one of its own
        pages = mapped[number << 10 : (number + 1) << 10]
        memory.write(table, b"".join((3 * there).to_bytes(4, "little") for there in pages))
        memory.write(0x1000 + 4 * number, (table | 3).to_bytes(4, "little"))
    space = FreeSpace(mode, memory)
    for pages, page, there in steps:
        try:
            hole = find_hole(space, pages)
            assert hole == find_hole(FreeSpace(mode, memory), pages)
            assert not space.mapped(hole >> 12, (hole >> 12) + pages)
            page = (hole >> 12) - 1 if page % 3 == 0 else page
        except NoHole:
            with pytest.raises(NoHole):
                find_hole(FreeSpace(mode, memory), pages)
        memory.write(full[page >> 10] + 4 * (page & 0x3FF), (3 * there).to_bytes(4, "little"))
        space.touch(page, page + 1)
        fresh = FreeSpace(mode, memory)
        assert list(space.holes(pages)) == list(fresh.holes(pages))
        around = range(max(page - 20, 1), min(page + 20, 0xFFFFE))
        wanted = [at for at in around if not fresh.is_free(at << 12, 1)]
        assert space.mapped(around.start, around.stop) == wanted


@pytest.mark.parametrize("first", [0, 0x1FE, 0x3FFFF0, (1 << 36) - 0x410])
def test_entries_in_a_row_are_put_as_they_are_one_by_one(first: int) -> None:
    ram = memoryview(bytearray(64 * PAGE_SIZE))
    pool = Pool(ram, [HPA(n * PAGE_SIZE) for n in range(64)])
    one, other = View(ram, pool), View(ram, pool)
    for entries in ([0] * 9, [*range(700)], [0] * 600 + [5], [0] * 1040):
        one.put(first, np.array(entries, np.uint64))
        for number, entry in enumerate(entries):
            other.set(canonical(first + number), entry)
        assert list(one.entries()) == list(other.entries())
