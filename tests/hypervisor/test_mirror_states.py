"""After any sequence of what a guest may do to its tables, each mirror is the guest's mappings plus the region.

Tables of all formats share the same pages, so that one store changes what several roots map, each in its own way, and
a table of the one is data, or nonsense, to the other. Usually that is 5,000 steps, with HYPOTHESIS_PROFILE=nightly
200,000.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hvproto.addresses import GPA, GVA, HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.relocation import Move, NoHole, find_hole, first_conflict
from hvproto.hypervisor.tables import GuestTables
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import Access, PagingMode, accessed_bits, fault_code, walk
from hvproto.processor.processor import Processor
from tests.hypervisor.mirror_model import (
    PS,
    A,
    P,
    Paging,
    U,
    W,
    backed_pages,
    check,
    free_runs,
    random_entry,
    read_pages,
    shuffled_frames,
    table_pages,
)

STEPS = 50
MEMORY = 40
POOL = 700
REGION = 5
RAM = Ram(4 * MIB)
TABLES = [n * PAGE_SIZE for n in range(1, 13)]
"""The root is the first of a format's; those further on are meant for the lower levels, and linked to at random."""
FRAMES = [0, 2 * PAGE_SIZE, 20 * PAGE_SIZE, (MEMORY - 1) * PAGE_SIZE, MEMORY * PAGE_SIZE, 0xFEE0_0000, 0x50_0000_0000]
PAGINGS = [
    Paging("none"),
    Paging("2-level", TABLES[0]),
    Paging("2-level", TABLES[1], pse=False, wp=False),
    Paging("pae", TABLES[0] + 0x40),
    Paging("pae", TABLES[1], nxe=False, wp=False),
    Paging("4-level", TABLES[0]),
    Paging("4-level", TABLES[1]),
    Paging("4-level", TABLES[0], nxe=False, wp=False),
]
INDICES = (0, 1, 2, 255, 256, 510, 511, 768, 1023)
_seeds = st.integers(0, 1 << 32)
_tables = st.integers(0, len(TABLES) - 1)
_indices = st.sampled_from(INDICES)


class Guest(RuleBasedStateMachine):
    """What a guest does, and what the hypervisor does about it."""

    processor = Processor(RAM.view)

    @initialize(seed=st.integers(0, 1000), paging=st.sampled_from(PAGINGS), may_lag=st.booleans())
    def start(self, seed: int, paging: Paging, may_lag: bool) -> None:
        RAM.view[:] = bytes(len(RAM.view))
        frames = shuffled_frames(MEMORY + 1 + REGION + POOL, seed, len(RAM.view))
        self.memory = GuestMemory(RAM.view, frames[:MEMORY])
        self.memory.add_device(0xFEE0_0000, HPA(0x40_0000_0000))
        self.memory.add_memory(0x50_0000_0000, frames[MEMORY])
        self.pages = [*range(0, MEMORY * PAGE_SIZE, PAGE_SIZE), 0xFEE0_0000, 0x50_0000_0000]
        self.region_frames = frames[MEMORY + 1 : MEMORY + 1 + REGION]
        self.pool = Pool(RAM.view, frames[MEMORY + 1 + REGION :])
        self.monitor = Monitor(self.processor, self.memory)
        self.tables = GuestTables(RAM.view, self.pool, self.memory, self.monitor)
        self.tables.may_lag = lambda: may_lag
        self.executable: dict[Mirror, dict[bool, dict[int, int]]] = {}
        self.ended = False
        self.moves: list[Move] = []
        self.pagings: dict[PagingMode, Paging] = {paging.mode: paging for paging in PAGINGS}
        draw = random.Random(seed)
        for table in range(len(TABLES)):
            for _ in range(draw.choice((0, 5, 15))):
                self.store(table, draw.choice(INDICES), draw)
        self.mirror = self.tables.mirror_for(paging.mode)
        self.region = find_hole(self.mirror.space, REGION)
        self.mirror.set_region(self.region, self.region_frames, 1)

    def teardown(self) -> None:
        if hasattr(self, "tables") and not self.ended:
            self.mirror.clear_region(self.region, REGION)
            for old in self.tables.mirrors:
                try:
                    self.mirror = self.tables.mirror_for(old.mode)
                except PoolExhausted:
                    continue
                self.check(self.mirror, has_region=False)
        for page in sorted(self.monitor.watched) if hasattr(self, "monitor") else ():
            while page in self.monitor.watched:
                self.monitor.unwatch(page)

    @property
    def paging(self) -> Paging:
        return self.pagings[self.mirror.mode]

    # -- what the hypervisor does ------------------------------------------------------------

    def follow(self) -> None:
        """Figure 4, for all stores since the last time."""
        try:
            conflict = None
            for change in self.tables.changes_of(self.monitor.drain()):
                if change.mirror is self.mirror and conflict is None:
                    conflict = first_conflict(self.mirror, self.region, REGION * PAGE_SIZE, change.linear, change.size)
                change.mirror.sync_range(change.linear, change.size)
            if conflict is not None:
                self.move(conflict)
        except (PoolExhausted, NoHole):
            self.ended = True

    def move(self, conflict: GVA) -> None:
        new = find_hole(self.mirror.space, REGION, history=self.moves)
        self.moves.append(Move(self.region, new, conflict))
        self.mirror.clear_region(self.region, REGION)
        self.region = new
        self.mirror.set_region(new, self.region_frames, 1)

    # -- what the guest does -----------------------------------------------------------------

    @rule(table=_tables, index=_indices, seed=_seeds)
    def store_an_entry(self, table: int, index: int, seed: int) -> None:
        self.store(table, index, random.Random(seed))
        self.follow()

    def store(self, table: int, index: int, draw: random.Random) -> None:
        paging = draw.choice(PAGINGS[1:])
        level = min(table // 3, len(paging.levels) - 1) if draw.random() < 0.9 else draw.randrange(len(paging.levels))
        below = TABLES[3 * level + 3 : 3 * level + 6] if draw.random() < 0.95 and level < 3 else TABLES
        size = paging.entry_size
        value = random_entry(draw, paging, level, below, FRAMES)
        if draw.random() < 0.5:
            value |= P | W | U | A
        self.memory.write(TABLES[table] + index % (PAGE_SIZE // size) * size, value.to_bytes(size, "little"))

    @rule(table=_tables, seed=_seeds, count=st.integers(2, 40))
    def store_many_entries(self, table: int, seed: int, count: int) -> None:
        draw = random.Random(seed)
        start = draw.choice((0, 250, 500, draw.randrange(1000)))
        for number in range(count):
            self.store(table, start + number, draw)
        self.follow()

    @rule(at=st.integers(TABLES[0], TABLES[-1] + PAGE_SIZE - 16), data=st.binary(min_size=1, max_size=16))
    def store_anything_anywhere(self, at: int, data: bytes) -> None:
        self.memory.write(at, data)
        self.follow()

    @rule(table=_tables, index=_indices, flip=st.sampled_from((1, 2, 4, 0x20, 0x40, 0x80)))
    def flip_a_bit(self, table: int, index: int, flip: int) -> None:
        at = TABLES[table] + index * 4
        if at < TABLES[table] + PAGE_SIZE:
            old = self.memory.read_entry(at, 1)
            assert old is not None
            self.memory.write(at, bytes([old ^ flip]))
            self.follow()

    @precondition(lambda self: not self.ended and self.paging.kind != "none")
    @rule(seed=_seeds)
    def map_where_the_region_is(self, seed: int) -> None:
        """An entry for an address in the region, in the table furthest down that there is for it."""
        draw = random.Random(seed)
        linear = self.region + draw.randrange(REGION) * PAGE_SIZE
        last = walk(self.mirror.mode, self.memory.read_entry, linear).leaf
        paging = self.paging
        leaf = last.level == len(paging.levels) - 1
        frame = draw.choice(FRAMES) if leaf else 0
        flags = P | W if leaf or not paging.large_at(last.level) else P | W | PS
        if not leaf and draw.random() < 0.7:
            frame, flags = draw.choice(TABLES[3 * last.level + 3 : 3 * last.level + 6]), P | W | U | A
        size = paging.entry_size
        if self.memory.write(last.address, (frame & (1 << 8 * size) - 1 | flags).to_bytes(size, "little")):
            before = self.region
            self.follow()
            assert self.ended or self.region != before or self.mirror.guest_page(linear) is None

    @rule(table=_tables)
    def make_a_table_data(self, table: int) -> None:
        self.memory.write(TABLES[table], bytes(PAGE_SIZE))
        self.follow()

    @precondition(lambda self: not self.ended)
    @rule(paging=st.sampled_from(PAGINGS))
    def load_a_root(self, paging: Paging) -> None:
        try:
            self.mirror.clear_region(self.region, REGION)
            self.mirror = self.tables.mirror_for(paging.mode)
            conflict = first_conflict(self.mirror, self.region, REGION * PAGE_SIZE, 0, 1 << 64)
            if conflict is not None:
                self.mirror.clear_region(self.region, REGION)  # it isn't there, and nothing else may come of this
                self.region = find_hole(self.mirror.space, REGION)
            self.mirror.set_region(self.region, self.region_frames, 1)
        except (PoolExhausted, NoHole):
            self.ended = True

    @precondition(lambda self: not self.ended)
    @rule(seed=_seeds)
    def move_the_region(self, seed: int) -> None:
        draw = random.Random(seed)
        start, pages = draw.choice(list(self.mirror.space.holes(REGION)))
        self.mirror.clear_region(self.region, REGION)
        self.region = GVA(start + draw.choice((0, pages - REGION)) * PAGE_SIZE)
        self.mirror.set_region(self.region, self.region_frames, 1)

    @precondition(lambda self: not self.ended)
    @rule(seed=_seeds, access=st.sampled_from(Access), user=st.booleans())
    def access(self, seed: int, access: Access, user: bool) -> None:
        """As the hypervisor carries out what faulted: A and D are set as by the processor, the page appears."""
        mapped = sorted(backed_pages(self.paging, self.memory, RAM.view, self.pages))
        if not mapped:
            return
        mode, linear = self.mirror.mode, random.Random(seed).choice(mapped)
        found = walk(mode, self.memory.read_entry, linear)
        if fault_code(mode, found, access, user=user) is not None:
            return
        for at, bits in accessed_bits(mode, found, access):
            self.memory.set_bits(at, bits)
        if access is Access.FETCH:
            page = self.mirror.guest_page(linear)
            assert page is not None
            for mirror in self.tables.mirrors:
                if mirror.forbid_fetches(linear, except_from=GPA(page.gpa)):
                    for looked_at in self.executable[mirror].values():
                        if looked_at.get(linear) != page.gpa:
                            looked_at.pop(linear, None)
                    mirror.sync_page(linear)
            self.mirror.allow_fetches(linear, GPA(page.gpa), kernel=not user)
            self.executable.setdefault(self.mirror, {True: {}, False: {}})[not user][linear] = page.gpa
        self.mirror.sync_page(linear)
        entry = (self.mirror.user if user else self.mirror.kernel).get(linear)
        assert entry & P and (access is not Access.WRITE or entry & W)

    @precondition(lambda self: not self.ended)
    @rule(kernel=st.booleans())
    def code_of_another_kind(self, kernel: bool) -> None:
        self.mirror.forget_fetches(kernel=kernel)
        if self.mirror in self.executable:
            self.executable[self.mirror][kernel].clear()

    # -- what must hold ----------------------------------------------------------------------

    def lags(self, mirror: Mirror) -> bool:
        return bool(self.tables._roots[mirror.mode].lagging)

    def check(self, mirror: Mirror, *, has_region: bool = True) -> None:
        region = {self.region + n * PAGE_SIZE: frame for n, frame in enumerate(self.region_frames)}
        check(
            mirror,
            self.pagings[mirror.mode],
            RAM.view,
            self.pages,
            region=region if mirror is self.mirror and has_region else {},
            executable=self.executable.get(mirror),
        )

    @precondition(lambda self: hasattr(self, "mirror") and not self.ended)
    @invariant()
    def mirror_is_guest_and_region(self) -> None:
        mirrors = self.tables.mirrors
        assert mirrors[-1] is self.mirror
        self.check(self.mirror)
        assert not self.lags(self.mirror)
        if not self.lags(mirrors[0]):
            self.check(mirrors[0])
        read = read_pages(self.memory, RAM.view)
        tables = {mirror: table_pages(self.pagings[mirror.mode], read) for mirror in mirrors}
        assert self.monitor.watched >= tables[self.mirror]
        if not any(map(self.lags, mirrors)):
            assert self.monitor.watched == set().union(*tables.values())

    @precondition(lambda self: hasattr(self, "mirror") and not self.ended)
    @invariant()
    def holes_are_what_is_not_mapped(self) -> None:
        expected = free_runs(self.paging, self.memory, RAM.view, self.pages)
        assert list(self.mirror.space.holes()) == expected
        start = self.region
        assert any(low <= start and start + REGION * PAGE_SIZE <= low + pages * PAGE_SIZE for low, pages in expected)


TestGuest = Guest.TestCase
TestGuest.settings = settings(stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))
