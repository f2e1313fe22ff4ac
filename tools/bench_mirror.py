"""What the mirror costs: building, loading, following stores, finding holes. `python tools/bench_mirror.py`

Times are of the processor, in microseconds, the best of several; a root's build includes the write protection of its
tables, which the engine takes most of.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.monitor import Monitor, TableStore
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.relocation import find_hole
from hvproto.hypervisor.tables import GuestTables
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import PagingMode
from hvproto.processor.processor import Processor
from hvproto.processor.settings import CR0_PE, CR0_PG, CR0_WP, CR4_PSE

MEMORY = 128 * MIB
ALL = 0x67
"""Present, writable, user, accessed, dirty."""


class Guest:
    """128 MiB of memory with 2-level tables in it, and the mirrors of them."""

    def __init__(self) -> None:
        ram = Ram(256 * MIB).view
        pages = MEMORY // PAGE_SIZE
        self.ram = ram
        self.memory = GuestMemory(ram, [HPA(n * PAGE_SIZE) for n in range(pages)])
        self.pool = Pool(ram, [HPA(n * PAGE_SIZE) for n in range(pages, 2 * pages)])
        self.monitor = Monitor(Processor(ram), self.memory)
        self.tables = GuestTables(ram, self.pool, self.memory, self.monitor)

    def root(self, at: int, tables: int, count: int, absent: int = 0) -> PagingMode:
        """A root with so many full page tables, in each of which some entries, at random, are absent."""
        draw = random.Random(at)
        self.memory.write(
            at, np.arange(tables | ALL, (tables | ALL) + count * PAGE_SIZE, PAGE_SIZE, np.uint32).tobytes()
        )
        frames = MEMORY // PAGE_SIZE
        for number in range(count):
            entries = np.arange(number * 1024, (number + 1) * 1024, dtype=np.uint32) % frames << 12 | ALL
            entries[draw.sample(range(1, 1023), absent)] = 0
            self.memory.write(tables + number * PAGE_SIZE, entries.tobytes())
        self.monitor.drain()
        return PagingMode(CR0_PE | CR0_PG | CR0_WP, at, CR4_PSE, 0)


def best(name: str, action: Callable[[], object], times: int = 5, each: int = 1) -> float:
    found = float("inf")
    for _ in range(times):
        start = time.process_time()
        action()
        found = min(found, (time.process_time() - start) / each * 1e6)
    print(f"{name:60}{found:14,.1f} us")
    return found


def main() -> None:
    guest = Guest()
    tables, memory = guest.tables, guest.memory
    everything = Mirror(guest.ram, guest.pool, memory, guest.root(0x1000, 0x10_0000, 256))
    bulk = best("262,144 pages in bulk", lambda: everything.sync_range(0, 1 << 30))
    single = best("the same, page by page", lambda: [everything.sync_page(n << 12) for n in range(1 << 18)], 1)
    print(f"{'ratio':60}{single / bulk:14,.0f}")
    everything.release()

    unix = guest.root(0x2000, 0x30_0000, 59)
    best("a new root with 60,416 pages in 59 tables", lambda: tables.mirror_for(unix), 1)
    best("one that was loaded before", lambda: tables.mirror_for(unix))

    def follow(stores: list[TableStore]) -> None:
        for change in tables.changes_of(stores):
            change.mirror.sync_range(change.linear, change.size)

    stores = [TableStore(0x30_0000 + 4 * n, 4) for n in range(1024)]  # type: ignore[arg-type]
    best("a store to an entry", lambda: [follow([store]) for store in stores], each=len(stores))
    best("1,024 successive stores together, each", lambda: follow(stores), each=len(stores))
    best("a store to an upper entry", lambda: follow([TableStore(0x2014, 4)]))  # type: ignore[arg-type]

    mode = guest.root(0x3000, 0x100_0000, 1024, absent=98)
    memory.write(0x100_3000 + 4 * 200, bytes(4 * 40))
    space = tables.mirror_for(mode).space
    guest.monitor.drain()
    best("the first hole of 30 pages in a space of 4 GiB", lambda: find_hole(space, 30), 1)
    best(f"the next among {len(list(space.holes())):,}", lambda: find_hole(space, 30), 20)

    def chase() -> None:
        for number in range(1000):
            memory.write(0x100_3000 + 4 * (200 + number % 40), bytes([ALL if number % 80 < 40 else 0, 0, 0, 0]))
            tables.changes_of(guest.monitor.drain())
            next(space.holes(5), None)

    best("a store there and a hole of 5 pages", chase, each=1000)


if __name__ == "__main__":
    main()
