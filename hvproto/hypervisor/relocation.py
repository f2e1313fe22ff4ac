"""Conflicts between the guest's mappings and the region, and moving the region (figure 4, steps 42-46).

The guest always wins: where both want an address, the region goes elsewhere, at page granularity,
and the guest's tables stay as they are, bit for bit.
"""

from __future__ import annotations

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.mirror import Mirror, mapped_from_the_top
from hvproto.processor.paging import PagingMode

HIGHEST_END = 0xFFFF_F000
"""The last page of the linear space stays free, so that no address of the region's end wraps to 0."""


class NoHole(Exception):
    """No hole is large enough."""

    def __init__(self, pages_sought: int, pages_found: int) -> None:
        super().__init__(pages_sought, pages_found)
        self.pages_sought = pages_sought
        self.pages_found = pages_found


def find_hole(mode: PagingMode, memory: GuestMemory, pages: int) -> GVA:
    """The highest place where the guest maps nothing in ``pages`` successive pages. Raises NoHole."""
    wanted = pages * PAGE_SIZE
    largest = 0
    end = start = HIGHEST_END
    for base, _size, mapped in mapped_from_the_top(mode, memory):
        if mapped:
            end = start = min(base, HIGHEST_END)
            continue
        start = min(base, HIGHEST_END)
        largest = max(largest, end - start)
        # Page 0 is never used: a null pointer of the guest must not find anything there.
        if end - wanted >= max(start, PAGE_SIZE):
            return GVA(end - wanted)
    raise NoHole(pages, largest // PAGE_SIZE)


def first_conflict(mirror: Mirror, region_base: int, region_size: int, linear: int, size: int) -> GVA | None:
    """The first page in [linear, linear + size) that both the region and the guest's tables map."""
    first = max(linear, region_base)
    for page in range(first, min(linear + size, region_base + region_size), PAGE_SIZE):
        if mirror.guest_page(page) is not None:
            return GVA(page)
    return None
