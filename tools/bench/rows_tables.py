"""Rows of the page tables: stores followed, mirrors built, the region moved, holes found, memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

import numpy as np

from bench import kernel, yardsticks
from bench.measure import Row, Sizes, seconds
from bench.rig import Rig
from bench.rows_exits import per_event
from hvproto.addresses import GVA, HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror
from hvproto.hypervisor.monitor import Monitor
from hvproto.hypervisor.pool import Pool
from hvproto.hypervisor.relocation import find_hole
from hvproto.hypervisor.tables import GuestTables
from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import PagingMode
from hvproto.processor.processor import Processor
from hvproto.processor.settings import CR0_PE, CR0_PG, CR0_WP, CR4_PSE

Y = yardsticks.empty_hook
ALL = 0x67
"""Present, writable, user, accessed, dirty."""
TABLES = 0x30_0000
MANY = 262_144


@cache
def _bed() -> tuple[memoryview, GuestMemory, Pool, GuestTables]:
    """64 MiB of guest memory with nothing in it, and as much for mirrors."""
    pages = 64 * MIB // PAGE_SIZE
    ram = Ram(128 * MIB).view
    memory = GuestMemory(ram, [HPA(n * PAGE_SIZE) for n in range(pages)])
    pool = Pool(ram, [HPA(n * PAGE_SIZE) for n in range(pages, 2 * pages)])
    return ram, memory, pool, GuestTables(ram, pool, memory, Monitor(Processor(ram), memory))


def _root(at: int, first_table: int, pages: int) -> PagingMode:
    """A 2-level root in the bed that maps so many pages from 0 on."""
    _, memory, _, _ = _bed()
    count = pages // 1024
    directory = np.arange(first_table | ALL, (first_table | ALL) + count * PAGE_SIZE, PAGE_SIZE, np.uint32)
    memory.write(at, directory.tobytes())
    frames = memory.size // PAGE_SIZE
    for number in range(count):
        entries = np.arange(number * 1024, (number + 1) * 1024, dtype=np.uint32) % frames << 12 | ALL
        memory.write(first_table + number * PAGE_SIZE, entries.tobytes())
    return PagingMode(CR0_PE | CR0_PG | CR0_WP, at, CR4_PSE, 0)


def build_mirror(pages: int, _sizes: Sizes) -> float:
    ram, memory, pool, _ = _bed()
    mirror = Mirror(ram, pool, memory, _root(0x1000, TABLES, pages))
    taken = seconds(lambda: mirror.sync_range(0, pages * PAGE_SIZE))
    mirror.release()
    return taken


def build_by_loop(pages: int, sizes: Sizes) -> float:
    """The loop over the entries that one would write: a part of it, scaled up."""
    ram, memory, pool, _ = _bed()
    mirror = Mirror(ram, pool, memory, _root(0x1000, TABLES, pages))
    part = pages // sizes.of(4, 32)
    taken = seconds(lambda: [mirror.sync_page(number * PAGE_SIZE) for number in range(part)])
    mirror.release()
    return taken * pages / part


def relocate(pages: int, _sizes: Sizes) -> float:
    """A region of 64 pages taken out and mapped again elsewhere, the hole found anew each time."""
    _, memory, pool, tables = _bed()
    mirror = tables.mirror_for(_root(0x2000, 0x80_0000, pages))
    frames = [pool.allocate() for _ in range(64)]
    base, count = find_hole(mirror.space, 64), 50
    mirror.set_region(base, frames, 1)
    start = time.perf_counter()
    for number in range(count):
        mirror.space.touch(0, 1024)
        new = GVA(find_hole(mirror.space, 64) - number % 2 * 64 * PAGE_SIZE)
        mirror.clear_region(base, 64)
        mirror.set_region(new, frames, 1)
        base = new
    taken = (time.perf_counter() - start) / count
    mirror.clear_region(base, 64)
    for frame in frames:
        pool.release(frame)
    assert memory
    return taken


@cache
def _scattered() -> Mirror:
    """A 48-bit space in which 100,000 pieces are mapped, each with a hole of one page behind it."""
    from hvproto.processor.settings import CR4_PAE, EFER_LMA, EFER_LME

    ram, memory, pool, _ = _bed()
    root, pointers, directory, tables, count = 0x4000, 0x5000, 0x6000, 0x100_0000, 512
    memory.write(root, (pointers | ALL).to_bytes(8, "little"))
    memory.write(pointers, (directory | ALL).to_bytes(8, "little"))
    memory.write(directory, np.arange(tables | ALL, (tables | ALL) + count * PAGE_SIZE, PAGE_SIZE, np.uint64).tobytes())
    entries = np.zeros(count * 512, np.uint64)
    entries[: 2 * 100_000 : 2] = 0x40_0000 | ALL
    memory.write(tables, entries.tobytes())
    mode = PagingMode(CR0_PE | CR0_PG | CR0_WP, root, CR4_PAE, EFER_LME | EFER_LMA)
    return Mirror(ram, pool, memory, mode)


def find_one(sizes: Sizes) -> float:
    """A hole of 64 pages, found again and again while single pages come and go."""
    space, count = _scattered().space, sizes.of(2_000, 500)
    find_hole(space, 64)
    draw = random.Random(1)
    pages = [draw.randrange(200_000) for _ in range(count)]
    start = time.perf_counter()
    for page in pages:
        space.touch(page, page + 1)
        find_hole(space, 64)
    return (time.perf_counter() - start) / count


def one_write(sizes: Sizes) -> float:
    return per_event(partial(kernel.table_writes, used=True), 300_000, 100_000, sizes)


def writes_in_a_row(count: int, _sizes: Sizes) -> float:
    """Seconds for each of so many stores to page tables, to new entries: the shortest of seven runs, which take 5 ms
    with all that is around the stores, less the shortest of as many with one store."""
    few, many = (
        min(Rig(kernel.table_writes(number, used=False), kernel.MEMORY).run() for _ in range(7))
        for number in (1, count)
    )
    return max(many - few, 1e-9) / count


_PROBE = """
import sys
sys.path[:0] = {path!r}
from bench import kernel
from bench.rig import Rig
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
before = resident()
rigs = [Rig(kernel.system_calls(100), kernel.MEMORY) for _ in range({guests})]
for rig in rigs:
    rig.run()
print(resident() - before)
"""


def memory_of(guests: int, _sizes: Sizes) -> float:
    """MiB that so many small guests keep resident, each on a machine of its own."""
    code = _PROBE.format(path=[str(Path(__file__).parent.parent)], guests=guests)
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, check=True)
    return float(done.stdout)


def _further(sizes: Sizes) -> float:
    return (memory_of(3, sizes) - memory_of(1, sizes)) / 2


def rows() -> list[Row]:
    return [
        Row("write", "one guest page-table write, mirrored at once", "Y", 3, one_write, Y),
        Row("writes", "10,000 page-table writes in a row, each", "Y", 0.1, partial(writes_in_a_row, 10_000), Y),
        Row("build", "a mirror of 262,144 pages from nothing", "x faster than a loop", 40,
            partial(build_mirror, MANY), partial(build_by_loop, MANY), at_least=True),
        Row("relocate", "relocation of 64 pages in the mirror", "Y", 100, partial(relocate, 1024), Y),
        Row("relocate-growth", "... with 262,144 pages mapped", "x with 1,024", 1.2, partial(relocate, MANY),
            partial(relocate, 1024)),
        Row("hole", "a hole among 100,000 intervals, 48 bits", "Y", 10, find_one, Y),
        Row("memory", "resident for one guest (16 MiB of its own)", "MiB", 40, partial(memory_of, 1), None),
        Row("memory-further", "... and for each further one", "MiB", 8, _further, None),
    ]  # fmt: skip
