"""The mirror of every paging format, over tables at random, against the independent walker."""

from __future__ import annotations

import random
import struct

import pytest

from hvproto.addresses import GPA, HPA, PAGE_SIZE
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.pool import Pool
from hvproto.machine.ram import MIB
from tests.hypervisor.mirror_model import (
    NX,
    PS,
    A,
    D,
    P,
    Paging,
    U,
    W,
    check,
    free_runs,
    random_entry,
    shuffled_frames,
)

MEMORY_PAGES = 700
"""More than a page table's worth, so that a large page is mirrored in part."""
TABLES = [n * PAGE_SIZE for n in range(16, 32)]
DEVICE = 0xFEE0_0000
DEVICE_WINDOW = HPA(0x40_0000_0000)
FAR = 0x80_0000_0000 - PAGE_SIZE
"""The last page that 39 bits can address."""
MODES = [
    Paging("2-level", TABLES[0]),
    Paging("2-level", TABLES[0], pse=False, wp=False),
    Paging("pae", TABLES[0] + 0x20),
    Paging("pae", TABLES[0], nxe=False, wp=False),
    Paging("4-level", TABLES[0]),
    Paging("4-level", TABLES[0], nxe=False, wp=False),
]


class Small:
    """A guest's memory all over 8 MiB of RAM, with a device and a page far up, and a pool."""

    def __init__(self, seed: int, pages: int = MEMORY_PAGES) -> None:
        ram = bytearray(8 * MIB)
        self.ram = memoryview(ram)
        frames = shuffled_frames(2000, seed, len(ram))
        self.memory = GuestMemory(self.ram, frames[:pages])
        self.memory.add_device(DEVICE, DEVICE_WINDOW)
        self.memory.add_memory(FAR, frames[pages])
        self.pool = Pool(self.ram, frames[pages + 1 :])
        self.pages = [*range(0, pages * PAGE_SIZE, PAGE_SIZE), DEVICE, FAR]

    def put(self, gpa: int, value: int, size: int) -> None:
        assert self.memory.write(gpa, value.to_bytes(size, "little"))

    def mirror(self, paging: Paging) -> Mirror:
        mirror = Mirror(self.ram, self.pool, self.memory, paging.mode)
        mirror.sync_range(0, 1 << (48 if paging.kind == "4-level" else 32))
        return mirror

    def fill(self, paging: Paging, draw: random.Random, count: int) -> None:
        """Entries at random in tables at random."""
        depth = len(paging.levels)
        for _ in range(count):
            level = draw.randrange(depth)
            table = paging.cr3 if level == 0 else draw.choice(TABLES[1 + 5 * (level - 1) : 1 + 5 * level])
            most = paging.entries_at(level)
            index = draw.choice((0, 1, most // 2 - 1, most // 2, most - 1, draw.randrange(most)))
            at = table + index * paging.entry_size
            below = TABLES[1 + 5 * level : 6 + 5 * level] or TABLES
            frames = [0, 5 * PAGE_SIZE, MEMORY_PAGES * PAGE_SIZE - PAGE_SIZE, DEVICE, FAR, MEMORY_PAGES * PAGE_SIZE]
            self.put(at, random_entry(draw, paging, level, below, frames), paging.entry_size)


@pytest.mark.parametrize("paging", MODES, ids=lambda p: f"{p.kind}{'' if p.wp else '-other'}")
@pytest.mark.parametrize("seed", range(12))
def test_a_new_mirror_is_what_the_guest_maps(paging: Paging, seed: int) -> None:
    draw = random.Random(seed)
    small = Small(seed)
    small.fill(paging, draw, draw.choice((5, 40, 150)))
    mirror = small.mirror(paging)
    check(mirror, paging, small.ram, small.pages, exact=True)
    # Page by page it is the same.
    before = {view: dict(view.entries()) for view in (mirror.kernel, mirror.user)}
    for linear in before[mirror.kernel]:
        mirror.sync_page(linear)
    assert {view: dict(view.entries()) for view in (mirror.kernel, mirror.user)} == before
    mirror.release()
    assert small.pool.free == small.pool.size


@pytest.mark.parametrize("paging", MODES, ids=lambda p: f"{p.kind}{'' if p.wp else '-other'}")
@pytest.mark.parametrize("seed", range(6))
def test_holes_are_what_the_guest_does_not_map(paging: Paging, seed: int) -> None:
    draw = random.Random(seed)
    small = Small(seed)
    for _ in range(12):
        small.fill(paging, draw, draw.choice((1, 1, 20)))
        space = FreeSpace(paging.mode, small.memory)
        expected = free_runs(paging, small.memory, small.ram, small.pages)
        assert [(start, size) for start, size in space.holes()] == expected
        for least in (2, 5, 600):
            assert list(space.holes(least)) == [hole for hole in expected if hole[1] >= least]
        widest = max(size for _, size in expected) if expected else 0
        assert space.widest() == next((hole for hole in expected if hole[1] == widest), (0, 0))
        for start, size in expected[:5]:
            assert space.is_free(start, size) and not space.is_free(start, size + 1)
            assert not space.is_free(start - PAGE_SIZE, size) and space.is_free(start + (size - 1) * PAGE_SIZE, 1)


def test_without_paging_linear_is_physical() -> None:
    small = Small(3)
    paging = Paging("none")
    mirror = small.mirror(paging)
    check(mirror, paging, small.ram, small.pages, exact=True)
    assert mirror.guest_page(DEVICE) is not None and mirror.guest_page(MEMORY_PAGES * PAGE_SIZE) is None
    assert list(mirror.space.holes()) == [
        (DEVICE + PAGE_SIZE, 0xFFFFF - (DEVICE >> 12) - 1),
        (MEMORY_PAGES * PAGE_SIZE, (DEVICE >> 12) - MEMORY_PAGES),
    ]


def test_one_gib_pages_cost_what_there_is_behind_them() -> None:
    """An identity map of 512 GiB in one table: 512 large pages, and 702 pages of memory."""
    small = Small(4)
    paging = Paging("4-level", TABLES[0])
    small.put(TABLES[0], TABLES[1] | P | W | U | A, 8)
    for index in range(512):
        small.put(TABLES[1] + 8 * index, index << 30 | P | W | U | A | D | PS, 8)
    used = small.pool.free
    mirror = small.mirror(paging)
    used -= small.pool.free
    check(mirror, paging, small.ram, small.pages, exact=True)
    assert len(list(mirror.kernel.entries())) == MEMORY_PAGES + 2
    # Of each view: the root, a pointer table, three directories (low memory, the device's GiB, the last), four tables.
    assert used == 2 * (1 + 1 + 3 + 4)


def test_a_view_has_no_tables_where_nothing_is_for_the_user() -> None:
    small = Small(5)
    paging = Paging("2-level", TABLES[0])
    for slot in range(8):
        small.put(TABLES[0] + 4 * slot, TABLES[1] | P | W | A, 4)
    small.put(TABLES[0] + 4 * 8, TABLES[1] | P | W | U | A, 4)
    small.put(TABLES[1], P | W | U | A | D, 4)
    before = small.pool.free
    mirror = small.mirror(paging)
    assert before - small.pool.free == (3 + 9) + (3 + 1)
    check(mirror, paging, small.ram, small.pages, exact=True)


def test_only_code_that_was_looked_at_is_executable_and_never_a_device() -> None:
    small = Small(6)
    paging = Paging("4-level", TABLES[0])
    high = 0xFFFF_8000_0000_0000
    code = 5 * PAGE_SIZE
    small.put(TABLES[0] + 8 * 256, TABLES[1] | P | W | U | A, 8)
    small.put(TABLES[1], TABLES[2] | P | W | U | A, 8)
    small.put(TABLES[2], TABLES[3] | P | W | U | A, 8)
    for index in range(20):
        small.put(TABLES[3] + 8 * index, code | P | W | U | A, 8)
    small.put(TABLES[3] + 8 * 1, code | P | U | A | NX, 8)
    small.put(TABLES[3] + 8 * 2, DEVICE | P | U | A, 8)
    small.put(TABLES[3] + 8 * 3, code + PAGE_SIZE | P | U | A, 8)
    mirror = small.mirror(paging)
    check(mirror, paging, small.ram, small.pages, exact=True)
    looked_at: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for index in range(4):
        linear, gpa = high + index * PAGE_SIZE, DEVICE if index == 2 else code
        mirror.allow_fetches(linear, GPA(gpa), kernel=True)
        mirror.sync_page(linear)
        looked_at[True][linear] = gpa
    check(mirror, paging, small.ram, small.pages, exact=True, executable=looked_at)
    mirror.sync_range(high, 1 << 30)  # in bulk it is the same
    check(mirror, paging, small.ram, small.pages, exact=True, executable=looked_at)
    page = mirror.guest_page(high + PAGE_SIZE)
    assert page is not None and page.no_execute and page.gpa == code
    assert not mirror.forbid_fetches(high, except_from=GPA(code))
    assert mirror.forbid_fetches(high, except_from=GPA(code + PAGE_SIZE))
    mirror.sync_page(high)
    del looked_at[True][high]
    mirror.allow_fetches(high + 5 * PAGE_SIZE, GPA(code), kernel=False)
    mirror.allow_fetches(high + 5 * PAGE_SIZE, GPA(code), kernel=True)
    mirror.sync_page(high + 5 * PAGE_SIZE)
    looked_at[True][high + 5 * PAGE_SIZE] = looked_at[False][high + 5 * PAGE_SIZE] = code
    check(mirror, paging, small.ram, small.pages, exact=True, executable=looked_at)
    mirror.forget_fetches(kernel=True)
    del looked_at[True]
    check(mirror, paging, small.ram, small.pages, exact=True, executable=looked_at)


def test_the_region_lies_over_the_guest_and_goes_again() -> None:
    small = Small(7)
    paging = Paging("2-level", TABLES[0])
    small.put(TABLES[0] + 4 * 0x300, P | W | U | A | D | PS, 4)
    mirror = small.mirror(paging)
    frames = [small.pool.allocate() for _ in range(3)]
    base = 0xC000_1000
    mirror.set_region(base, frames, 1)
    region = {base + n * PAGE_SIZE: frame for n, frame in enumerate(frames)}
    check(mirror, paging, small.ram, small.pages, exact=True, region=region)
    entries = dict(mirror.user.entries())
    assert [entries[at] & (W | NX) for at in region] == [0, W | NX, W | NX]
    mirror.sync_range(0, 1 << 32)
    small.put(TABLES[0] + 4 * 0x300, 0, 4)
    mirror.sync_range(0xC000_0000, 1 << 22)
    check(mirror, paging, small.ram, small.pages, exact=True, region=region)
    mirror.clear_region(base, 3)
    check(mirror, paging, small.ram, small.pages, exact=True)
    before = small.pool.free
    for place in range(40):  # wherever it has been, no tables stay behind
        mirror.set_region(0x4000_0000 + place * 0x40_0000 - PAGE_SIZE, frames, 1)
        mirror.clear_region(0x4000_0000 + place * 0x40_0000 - PAGE_SIZE, 3)
    assert small.pool.free == before
    mirror.set_region(base, frames[:1], 1, writable_code=True)
    assert mirror.kernel.get(base) & (W | NX) == W


def test_the_check_can_fail() -> None:
    small = Small(8)
    paging = Paging("pae", TABLES[0])
    small.put(TABLES[0], TABLES[1] | P, 8)
    small.put(TABLES[1], TABLES[2] | P | W | U | A, 8)
    for index in range(64):
        small.put(TABLES[2] + 8 * index, struct.unpack("<Q", struct.pack("<Q", index << 12 | P | W | U | A))[0], 8)
    mirror = small.mirror(paging)
    check(mirror, paging, small.ram, small.pages, exact=True)
    entry = mirror.kernel.get(0x5000)
    for wrong in (0, entry ^ 0x1000, entry ^ NX, entry ^ U, entry | W, entry & ~P):
        mirror.kernel.set(0x5000, wrong)
        with pytest.raises(AssertionError):
            check(mirror, paging, small.ram, small.pages, exact=True)
