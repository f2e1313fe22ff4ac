"""What a guest's page tables map, worked out the slow way: the independent half of the tests of the mirror.

It knows the formats from the manual (SDM vol. 3, tables 4-4 to 4-20) and shares no code with the package.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from hvproto.addresses import HPA
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import MIRRORED, REGION, Mirror
from hvproto.processor.paging import PagingMode
from hvproto.processor.settings import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_LMA, EFER_LME, EFER_NXE

P, W, U, A, D, PS, G = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
NX = 1 << 63
PAGE = 4096
ADDRESS_BITS = 0x000F_FFFF_FFFF_F000
MAXPHYADDR = 40
LEVELS = {"none": (), "2-level": (22, 12), "pae": (30, 21, 12), "4-level": (39, 30, 21, 12)}

ReadPage = Callable[[int], bytes | None]


def bits(low: int, high: int) -> int:
    """Bits ``low`` to ``high``, both included."""
    return (1 << high + 1) - (1 << low)


@dataclass(frozen=True)
class Paging:
    """A paging mode by what the manual calls it."""

    kind: str
    cr3: int = 0
    pse: bool = True
    nxe: bool = True
    wp: bool = True

    @property
    def mode(self) -> PagingMode:
        if self.kind == "none":
            return PagingMode(0, 0, 0, 0)
        cr4 = CR4_PSE * self.pse | CR4_PAE * (self.kind != "2-level")
        efer = EFER_NXE * self.nxe | (EFER_LMA | EFER_LME) * (self.kind == "4-level")
        return PagingMode(CR0_PE | CR0_PG | CR0_WP * self.wp, self.cr3, cr4, efer)

    @property
    def entry_size(self) -> int:
        return 4 if self.kind == "2-level" else 8

    @property
    def levels(self) -> tuple[int, ...]:
        return LEVELS[self.kind]

    def entries_at(self, level: int) -> int:
        return 4 if self.kind == "pae" and level == 0 else PAGE // self.entry_size

    def large_at(self, level: int) -> bool:
        return {"2-level": self.pse and level == 0, "pae": level == 1, "4-level": level in (1, 2)}[self.kind]

    def reserved(self, level: int, entry: int) -> bool:
        """Whether a present entry has a bit set that must be clear."""
        large = bool(entry & PS) and self.large_at(level)
        shift = self.levels[level]
        if self.kind == "2-level":
            return large and bool(entry & bits(21, 21))
        must = bits(MAXPHYADDR, 62 if self.kind == "pae" else 51)
        if not self.nxe or (self.kind == "pae" and level == 0):
            must |= NX
        if self.kind == "4-level" and level == 0:
            must |= PS
        if large:
            must |= bits(13, shift - 1)
        return bool(entry & must)


@dataclass(frozen=True)
class Mapping:
    """One entry that maps memory: first linear address, first GPA, size; permissions combined."""

    linear: int
    gpa: int
    size: int
    writable: bool
    user: bool
    accessed: bool
    dirty: bool
    no_execute: bool


def mappings(paging: Paging, read_page: ReadPage) -> Iterator[Mapping]:
    """All that the tables map, in order of linear address (bits 0 to 47)."""
    table = paging.cr3 & (0xFFFF_FFE0 if paging.kind == "pae" else ADDRESS_BITS)
    yield from _walk(paging, read_page, 0, table, 0, (True, True, True, False))


def _walk(
    paging: Paging, read_page: ReadPage, level: int, table: int, base: int, above: tuple[bool, bool, bool, bool]
) -> Iterator[Mapping]:
    page = read_page(table & ~(PAGE - 1))
    if page is None:
        return
    size, count = paging.entry_size, paging.entries_at(level)
    raw = page[table & PAGE - 1 :][: count * size]
    if not any(raw):
        return
    shift = paging.levels[level]
    for index, entry in enumerate(struct.unpack(f"<{count}{'I' if size == 4 else 'Q'}", raw)):
        if not entry & P or paging.reserved(level, entry):
            continue
        linear = base + (index << shift)
        writable, user, accessed, no_execute = above
        if not (paging.kind == "pae" and level == 0):
            writable &= bool(entry & W)
            user &= bool(entry & U)
            accessed &= bool(entry & A)
            no_execute |= size == 8 and bool(entry & NX)
        last = level == len(paging.levels) - 1
        if not last and not (entry & PS and paging.large_at(level)):
            yield from _walk(
                paging, read_page, level + 1, entry & ADDRESS_BITS, linear, (writable, user, accessed, no_execute)
            )
            continue
        gpa = entry & ADDRESS_BITS
        if not last:
            gpa &= ~((1 << shift) - 1)
            if paging.kind == "2-level":
                gpa |= (entry >> 13 & 0xFF) << 32
        yield Mapping(linear, gpa, 1 << shift, writable, user, accessed, bool(entry & D), no_execute)


def table_pages(paging: Paging, read_page: ReadPage) -> set[int]:
    """The guest-physical pages in which there is a table."""
    found: set[int] = set()

    def read(gpa: int) -> bytes | None:
        page = read_page(gpa)
        if page is not None:
            found.add(gpa)
        return page

    if paging.kind != "none":
        for _ in mappings(paging, read):
            pass
    return found


def canonical(linear: int) -> int:
    return linear | 0xFFFF << 48 if linear >> 47 & 1 else linear


def read_pages(memory: GuestMemory, ram: memoryview) -> ReadPage:
    """A reader of the guest's memory by its own list of frames."""

    def read(gpa: int) -> bytes | None:
        hpa = memory.to_host(gpa)
        return None if hpa is None or hpa >= len(ram) else bytes(ram[hpa : hpa + PAGE])

    return read


def free_runs(paging: Paging, memory: GuestMemory, ram: memoryview, pages: list[int]) -> list[tuple[int, int]]:
    """(start, pages) of what is mapped by nothing and may be used, the highest first."""
    wide = paging.kind == "4-level"
    end = 1 << (48 if wide else 32)
    taken = [(0, PAGE), (end - PAGE, end)]
    if wide:
        taken.append(((1 << 47) - PAGE, 1 << 47))
    if paging.kind == "none":
        taken += [(gpa, gpa + PAGE) for gpa in pages if gpa < end]
    else:
        taken += [(m.linear, m.linear + m.size) for m in mappings(paging, read_pages(memory, ram))]
    taken.sort()
    return [(canonical(stop), (start - stop) // PAGE) for (_, stop), (start, _) in pairwise(taken) if start > stop][
        ::-1
    ]


def backed_pages(paging: Paging, memory: GuestMemory, ram: memoryview, pages: list[int]) -> dict[int, Mapping]:
    """canonical linear page -> its mapping, of all that leads to one of these guest-physical pages (sorted)."""
    if paging.kind == "none":
        return {gpa: Mapping(gpa, gpa, PAGE, True, True, True, True, False) for gpa in pages if gpa < 1 << 32}
    found = {}
    for whole in mappings(paging, read_pages(memory, ram)):
        if whole.size == PAGE:
            inside = [whole.gpa] if memory.to_host(whole.gpa) is not None else []
        else:
            inside = [gpa for gpa in pages if whole.gpa <= gpa < whole.gpa + whole.size]
        for gpa in inside:
            linear = canonical(whole.linear + gpa - whole.gpa)
            rights = whole.writable, whole.user, whole.accessed, whole.dirty, whole.no_execute
            found[linear] = Mapping(linear, gpa, PAGE, *rights)
    return found


def check(
    mirror: Mirror,
    paging: Paging,
    ram: memoryview,
    pages: list[int],
    *,
    region: dict[int, int] | None = None,
    exact: bool = False,
    executable: dict[bool, dict[int, int]] | None = None,
) -> None:
    """Both views hold exactly what the guest maps, and the region (linear -> frame).

    ``exact``: an entry is present if and only if its A bits are set, and so for D. (Otherwise only if: another page's
    access may have set the last A bit on the way.) ``executable``: by view, linear -> GPA of what may be fetched from.
    """
    expected = backed_pages(paging, mirror.memory, ram, pages)
    region = region or {}
    for view, kernel in ((mirror.kernel, True), (mirror.user, False)):
        entries = dict(view.entries())
        assert list(entries) == sorted(entries)
        for linear, frame in region.items():
            entry = entries.pop(linear)
            assert entry & REGION and entry & P and not entry & U and entry & ADDRESS_BITS == frame
        wanted = {linear: page for linear, page in expected.items() if linear not in region and (kernel or page.user)}
        assert entries.keys() == wanted.keys(), f"{sorted(map(hex, entries.keys() ^ wanted.keys()))[:9]}"
        looked_at = (executable or {}).get(kernel, {})
        for linear, page in wanted.items():
            entry = entries[linear]
            where = f"{linear:#x}: {entry:#x} for {page}"
            assert entry & MIRRORED and entry & U and not entry & REGION, where
            hpa = mirror.memory.to_host(page.gpa)
            assert hpa is not None and entry & ADDRESS_BITS == hpa, where
            may_write = page.dirty and (page.writable or (kernel and not paging.wp and paging.kind != "none"))
            if exact:
                assert bool(entry & P) == page.accessed and bool(entry & W) == may_write, where
            else:
                assert page.accessed or not entry & P, where
                assert may_write or not entry & W, where
            may_fetch = looked_at.get(linear) == page.gpa and not page.no_execute and hpa < len(ram)
            assert bool(entry & NX) != may_fetch, where


def shuffled_frames(count: int, seed: int, ram_size: int) -> list[HPA]:
    """Frames all over RAM, in no order; never frame 0."""
    numbers = list(range(1, ram_size // PAGE))
    random.Random(seed).shuffle(numbers)
    return [HPA(number * PAGE) for number in numbers[:count]]


# -- tables at random --------------------------------------------------------------------------


def random_entry(draw: random.Random, paging: Paging, level: int, tables: list[int], frames: list[int]) -> int:
    """An entry for a level: absent, a table, a page, a large page, nonsense."""
    flags = draw.choice((0, P, P | W, P | U, P | W | U, P | W | U | A, P | W | U | A | D, P | A | D, P | U | A, W | U))
    flags |= draw.choice((0, 0, 0, G))
    last = level == len(paging.levels) - 1
    if not last and draw.random() < 0.75:
        target = draw.choice(tables)
    else:
        target = draw.choice(frames)
        if not last and draw.random() < 0.8:
            flags |= PS
            size = 1 << paging.levels[level]
            target = draw.choice((0, 0, target // size * size, 1 << 31, size, target))
    entry = target | flags
    if paging.entry_size == 8:
        entry |= draw.choice((0, 0, 0, 0, NX, 1 << 52, 1 << 45))
    return entry & ((1 << 8 * paging.entry_size) - 1)
