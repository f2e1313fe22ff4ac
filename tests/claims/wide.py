"""What the claim tests of 64-bit guests look at: four-level page tables, gates and frames of long mode, read from RAM.

Made from the documented layouts (Intel SDM vol. 3, 4.5, 6.14); shares no code with the package. A guest's memory is the
machine's first 16 MiB: the bundled host gives it those, one to one.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

PAGE = 4096
P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
MIRRORED = 1 << 9
FRAME = 0xF_FFFF_FFFF_F000
GUEST_END = 0x0100_0000
"""End of the guest's memory, which is where the hypervisor's pool begins."""
POOL = range(GUEST_END, 2 * GUEST_END)
REGION_PAGES = 6


class Mapping(NamedTuple):
    """What the last level of a table maps, rights combined over the levels."""

    frame: int
    size: int
    writable: bool
    user: bool
    accessed: bool
    dirty: bool
    no_execute: bool


def qword(ram: memoryview, address: int) -> int:
    return int.from_bytes(ram[address : address + 8], "little")


def canonical(linear: int) -> int:
    return linear | 0xFFFF << 48 if linear >> 47 & 1 else linear


def look_up(ram: memoryview, root: int, linear: int) -> Mapping | None:
    """How a four-level table maps a linear address; None if it doesn't."""
    table, rights, no_execute = root & FRAME, W | U | A, False
    for shift in (39, 30, 21, 12):
        if table >= len(ram):
            return None
        entry = qword(ram, table + (linear >> shift & 511) * 8)
        if not entry & P:
            return None
        rights &= entry
        no_execute |= bool(entry & NX)
        if shift == 12 or (shift < 39 and entry & PS):
            size = 1 << shift
            return Mapping(
                entry & FRAME & ~(size - 1), size, bool(rights & W), bool(rights & U), bool(rights & A),
                bool(entry & D), no_execute,
            )  # fmt: skip
        table = entry & FRAME
    raise AssertionError("the last level always maps")


def is_mapped(ram: memoryview, root: int, page: int) -> bool:
    return look_up(ram, root, page) is not None


def guest_pages(ram: memoryview, root: int) -> dict[int, Mapping]:
    """Every 4 KiB page that a guest's four-level table maps to its memory, by linear address; large pages in pieces."""
    found: dict[int, Mapping] = {}

    def descend(table: int, shift: int, base: int, rights: int, no_execute: bool) -> None:
        for index, entry in enumerate(struct.unpack_from("<512Q", ram, table)):
            if not entry & P:
                continue
            linear, both, nx = base | index << shift, rights & entry, no_execute or bool(entry & NX)
            if shift > 12 and not (shift < 39 and entry & PS):
                descend(entry & FRAME, shift - 9, linear, both, nx)
                continue
            first = entry & FRAME & ~((1 << shift) - 1)
            for offset in range(0, min(1 << shift, GUEST_END - first), PAGE):
                found[canonical(linear + offset)] = Mapping(
                    first + offset, 1 << shift, bool(both & W), bool(both & U), bool(both & A), bool(entry & D), nx
                )

    descend(root & FRAME, 39, 0, W | U | A, False)
    return found


def last_entries(ram: memoryview, root: int) -> dict[int, int]:
    """Every last-level entry that isn't zero in the hypervisor's table, by linear address; it has 4 KiB pages only."""
    found: dict[int, int] = {}

    def descend(table: int, shift: int, base: int) -> None:
        for index, entry in enumerate(struct.unpack_from("<512Q", ram, table)):
            if shift == 12:
                if entry:
                    found[canonical(base | index << 12)] = entry
            elif entry & P:
                assert entry & (W | U | NX) == W | U, "an upper entry of the mirror must leave all rights to the last"
                descend(entry & FRAME, shift - 9, base | index << shift)

    descend(root & FRAME, 39, 0)
    return found


def differences_of_mirror(ram: memoryview, registers: Any, region: Any, root: int, *, exact: bool = False) -> list[str]:
    """Where the page table in CR3 isn't what a 64-bit guest's maps plus the region and nothing else.

    ``exact``: no table of the guest's is used at two addresses, so that a page of 4 KiB has to be there (be writable) as
    soon as it is called accessed (dirty). At another address it would be, of those bits, without having been used.
    """
    mirror = last_entries(ram, registers.cr3)
    wrong = []
    for number, linear in enumerate(region.pages):
        entry = mirror.pop(linear, 0)
        executed = number == 0  # the stubs
        if entry & (P | U) != P or entry & FRAME not in POOL or bool(entry & NX) == executed:
            wrong.append(f"{linear:#x}: no page of the region, but {entry:#x}")
    for linear, page in guest_pages(ram, root).items():
        entry = mirror.pop(linear, 0)
        if not region.kernel_view and not page.user:
            if entry:
                wrong.append(f"{linear:#x}: a supervisor page of the guest in the view of its programs")
            continue
        right = entry & FRAME == page.frame and entry & (U | MIRRORED) == U | MIRRORED
        # What the guest's tables don't call accessed (dirty) can't be there (can't be writable): its first use has to
        # be noticed. A page of 2 MiB is noticed in pieces, so that nothing says when a piece has to be there.
        right &= page.accessed or not entry & P
        right &= (page.dirty and page.writable) or not entry & W
        if exact and page.size == PAGE:
            right &= bool(entry & P) or not page.accessed
            right &= bool(entry & W) or not (page.dirty and page.writable)
        # What the guest forbids to execute must not be; what it allows may wait for its first fetch.
        right &= bool(entry & NX) or not page.no_execute
        if not right:
            wrong.append(f"{linear:#x}: {entry:#x} for {page}")
    wrong += [f"{linear:#x}: neither the guest's nor the region's" for linear in mirror]
    return wrong


def gate_of(ram: memoryview, idt: int, vector: int) -> tuple[int, int]:
    """(selector, offset) of a 16-byte gate, as it lies in RAM."""
    low, high = qword(ram, idt + vector * 16), qword(ram, idt + vector * 16 + 8)
    return low >> 16 & 0xFFFF, low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32


def point_gate(ram: memoryview, idt: int, vector: int, offset: int) -> None:
    """Have a gate, in RAM, lead elsewhere."""
    at = idt + vector * 16
    struct.pack_into("<H", ram, at, offset & 0xFFFF)
    struct.pack_into("<HI", ram, at + 6, offset >> 16 & 0xFFFF, offset >> 32)
