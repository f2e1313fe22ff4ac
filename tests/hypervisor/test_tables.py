"""Following tables: what is watched, what a store changes, and what happens when memory runs out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from hvproto.addresses import GPA, HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.monitor import Monitor, TableStore
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.tables import MAX_ROOTS, GuestTables, TooManyTables
from hvproto.images.assembly import assemble_text
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import PagingMode
from hvproto.processor.processor import Processor, Stop
from tests.hypervisor.mirror_model import A, D, P, Paging, U, W, check, shuffled_frames

MEMORY = 64
ROOTS = [0x1000 * n for n in range(1, 14)]
TABLES = [0x1000 * n for n in range(20, 30)]
DATA = 0x30000
ALL = P | W | U | A | D


class Bed:
    """A guest's memory all over RAM, and everything that follows its tables."""

    def __init__(self, pool: int = 200) -> None:
        self.ram = Ram(4 * MIB).view
        frames = shuffled_frames(MEMORY + pool, 5, len(self.ram))
        self.memory = GuestMemory(self.ram, frames[:MEMORY])
        self.pool = Pool(self.ram, frames[MEMORY:])
        self.monitor = Monitor(Processor(self.ram), self.memory)
        self.tables = GuestTables(self.ram, self.pool, self.memory, self.monitor)
        self.pages = list(range(0, MEMORY * PAGE_SIZE, PAGE_SIZE))

    def put(self, gpa: int, *entries: int, size: int = 4) -> None:
        self.memory.write(gpa, b"".join(entry.to_bytes(size, "little") for entry in entries))

    def follow(self) -> list[tuple[int, int]]:
        """Bring all mirrors up to date; the (linear, size) of what changed."""
        changes = self.tables.changes_of(self.monitor.drain())
        for change in changes:
            change.mirror.sync_range(change.linear, change.size)
        return [(change.linear, change.size) for change in changes]

    def check(self, paging: Paging, *, exact: bool = True) -> None:
        check(self.tables.mirror_for(paging.mode), paging, self.ram, self.pages, exact=exact)


def test_successive_entries_are_one_change_and_a_store_may_touch_two() -> None:
    bed = Bed()
    paging = Paging("2-level", ROOTS[0])
    bed.put(ROOTS[0] + 4 * 5, TABLES[0] | ALL, TABLES[0] | ALL)
    bed.tables.mirror_for(paging.mode)
    assert not bed.follow() and bed.monitor.watched == {ROOTS[0], TABLES[0]}
    for index in (3, 2, 7, 4, 1023):
        bed.put(TABLES[0] + 4 * index, DATA | ALL)
    bed.memory.write(TABLES[0] + 4 * 20 + 3, b"\0\1")
    expected = [(2, 3), (7, 1), (20, 2), (1023, 1)]
    # The table is in two places, and so is each change.
    assert bed.follow() == [
        (base + first * PAGE_SIZE, pages * PAGE_SIZE) for base in (0x140_0000, 0x180_0000) for first, pages in expected
    ]
    bed.check(paging)
    assert bed.tables.changes(TableStore(GPA(TABLES[0] + 6), 1)) == bed.tables.changes_of(
        [TableStore(GPA(TABLES[0] + 4), 2), TableStore(GPA(TABLES[0] + 5), 3)]
    )
    assert bed.tables.changes(TableStore(GPA(DATA), 4)) == []


def test_changes_of_the_upper_half_are_canonical() -> None:
    bed = Bed()
    paging = Paging("4-level", ROOTS[0])
    bed.tables.mirror_for(paging.mode)
    bed.put(ROOTS[0] + 8 * 511, TABLES[0] | ALL, size=8)
    assert bed.follow() == [(0xFFFF_FF80_0000_0000, 1 << 39)]
    bed.put(TABLES[0] + 8 * 511, TABLES[1] | ALL, size=8)
    bed.put(TABLES[1] + 8 * 511, TABLES[2] | ALL, size=8)
    bed.put(TABLES[2] + 8 * 511, DATA | ALL, size=8)
    assert bed.follow() == [(0xFFFF_FFFF_C000_0000, 1 << 30)], "what is below is new, and no change of its own"
    bed.check(paging)
    assert next(bed.tables.mirror_for(paging.mode).kernel.entries())[0] == 0xFFFF_FFFF_FFFF_F000


def test_a_table_becomes_data_and_a_table_again() -> None:
    bed = Bed()
    paging = Paging("pae", ROOTS[0])
    bed.put(ROOTS[0], TABLES[0] | P, size=8)
    bed.put(TABLES[0], TABLES[1] | ALL, TABLES[1] | ALL, size=8)
    bed.put(TABLES[1], DATA | ALL, size=8)
    bed.tables.mirror_for(paging.mode)
    assert bed.monitor.watched == {ROOTS[0], TABLES[0], TABLES[1]}
    for first, second, watched in ((0, 1, True), (0, 0, False), (1, 0, True), (1, 1, True)):
        bed.put(TABLES[0], TABLES[1] | ALL * first, TABLES[1] | ALL * second, size=8)
        bed.follow()
        assert bed.tables.is_table(TABLES[1] + 0x123) is watched is (TABLES[1] in bed.monitor.watched)
        bed.put(TABLES[1] + 8, DATA + PAGE_SIZE | ALL, size=8)
        bed.follow()
        bed.check(paging)


def test_the_root_that_was_loaded_longest_ago_goes_first() -> None:
    bed = Bed()
    modes = [Paging("2-level", root).mode for root in ROOTS[: MAX_ROOTS + 1]]
    for root in ROOTS[: MAX_ROOTS + 1]:
        bed.put(root, TABLES[0] | ALL)
    mirrors = [bed.tables.mirror_for(mode) for mode in modes[:MAX_ROOTS]]
    assert bed.tables.mirror_for(modes[0]) is mirrors[0]
    bed.tables.mirror_for(modes[-1])
    assert [mirror.released for mirror in mirrors] == [False, True, *[False] * (MAX_ROOTS - 2)]
    assert ROOTS[1] not in bed.monitor.watched and TABLES[0] in bed.monitor.watched
    mirrors[1].sync_range(0, 1 << 32)
    mirrors[1].clear_region(0x1000, 2)
    assert not list(mirrors[1].kernel.entries()) and mirrors[1].kernel.get(0x1000) == 0


def _filled(bed: Bed, root: int, slots: range) -> PagingMode:
    for slot in slots:
        bed.put(root + 4 * slot, TABLES[0] | ALL)
    return Paging("2-level", root).mode


def test_older_mirrors_make_room_for_a_new_one_and_for_a_change() -> None:
    bed = Bed(pool=64)  # a root with five tables takes 2 * (3 + 10) or a little less
    bed.put(TABLES[0], DATA | ALL)
    bed.put(TABLES[0] + 4 * 1000, DATA | ALL)
    first, second = (bed.tables.mirror_for(_filled(bed, root, range(5))) for root in ROOTS[:2])
    assert not first.released and not second.released
    third = bed.tables.mirror_for(_filled(bed, ROOTS[2], range(5)))
    assert first.released and not second.released and not third.released
    bed.monitor.drain()
    _filled(bed, ROOTS[2], range(5, 10))
    bed.follow()
    assert second.released and not third.released
    bed.check(Paging("2-level", ROOTS[2]))
    with pytest.raises(PoolExhausted):
        bed.tables.mirror_for(_filled(bed, ROOTS[3], range(40)))
    assert bed.pool.free == bed.pool.size and not bed.monitor.watched


def test_a_mirror_that_cannot_follow_is_dropped_unless_it_is_loaded() -> None:
    bed = Bed(pool=64)
    bed.put(TABLES[0], DATA | ALL)
    old, new = (bed.tables.mirror_for(_filled(bed, root, range(5))) for root in ROOTS[:2])
    bed.monitor.drain()
    _filled(bed, ROOTS[0], range(5, 40))
    bed.follow()
    assert old.released and not new.released
    bed.check(Paging("2-level", ROOTS[1]))
    _filled(bed, ROOTS[1], range(5, 40))
    with pytest.raises(PoolExhausted):
        bed.follow()
    assert not new.released


def _timed(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def test_a_table_full_of_pointers_to_itself_is_refused_soon() -> None:
    """2^27 last-level tables: it is an error, not minutes."""
    bed = Bed()
    bed.put(ROOTS[0], *[ROOTS[0] | ALL] * 512, size=8)

    def load() -> None:
        with pytest.raises(TooManyTables):
            bed.tables.mirror_for(Paging("4-level", ROOTS[0]).mode)

    assert _timed(load) < 20
    assert bed.pool.free == bed.pool.size and not bed.monitor.watched and not bed.tables.mirrors


def test_pages_side_by_side_are_watched_each() -> None:
    """Real stores to each of eight pages; those that are watched are heard of, and all are performed."""
    ram = Ram(1 * MIB).view
    memory = GuestMemory(ram, [HPA(n * PAGE_SIZE) for n in range(64)])
    processor = Processor(ram)
    monitor = Monitor(processor, memory)
    monitor.watch_all([GPA(n * PAGE_SIZE) for n in (9, 3, 4, 5, 4)])
    image = assemble_text(
        "mov edi, 0x3ffc\nagain: inc dword ptr [edi]\nadd edi, 0x1000\ncmp edi, 0xb000\njb again\nhlt"
    )
    ram[0x20000 : 0x20000 + len(image.segments[0].data)] = image.segments[0].data

    def stored_to() -> list[int]:
        processor.eip = 0x20000
        while processor.run(1 << 40) is not Stop.HALT:
            pass
        return [store.gpa for store in monitor.drain()]

    assert stored_to() == [0x3FFC, 0x4FFC, 0x5FFC, 0x9FFC]
    monitor.unwatch(GPA(0x4000))
    assert stored_to() == [0x3FFC, 0x4FFC, 0x5FFC, 0x9FFC], "it has another user"
    monitor.unwatch(GPA(0x4000))
    assert stored_to() == [0x3FFC, 0x5FFC, 0x9FFC]
    assert all(ram[n * PAGE_SIZE - 4] == 3 for n in range(4, 12)) and ram[0x2FFC] == 0
