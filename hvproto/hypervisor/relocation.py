"""Conflicts between the guest's mappings and the region, and moving the region (figure 4, steps 42-46).

The guest always wins: where both want an address, the region goes elsewhere, at page granularity,
and the guest's tables stay as they are, bit for bit. Where it goes is a *policy's* to say; a place that isn't free is
refused, so that no policy can break what the mirror must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hvproto.addresses import GVA, PAGE_SHIFT, PAGE_SIZE
from hvproto.errors import HvprotoError
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.mirror import Mirror

REMEMBERED = 16
"""How many of the last conflicts the default policy keeps away from."""
KEPT_AWAY = 1 << 20
"""How far, in bytes and in both directions."""


class NoHole(Exception):
    """No hole is large enough."""

    def __init__(self, pages_sought: int, pages_found: int) -> None:
        super().__init__(pages_sought, pages_found)
        self.pages_sought = pages_sought
        self.pages_found = pages_found


class RegionFixed(NoHole):
    """The policy lets the region be in one place only, and that isn't free."""

    def __init__(self, gva: GVA, pages_sought: int, pages_found: int) -> None:
        super().__init__(pages_sought, pages_found)
        self.gva = gva


class SuggestionRefused(HvprotoError):
    """A policy suggested a place that isn't free, or isn't a page in the guest's linear space."""

    def __init__(self, policy: RelocationPolicy, gva: int, pages: int) -> None:
        name = type(policy).__name__
        super().__init__(f"the relocation policy {name} suggests {gva:#x}, where {pages} pages are not free")
        self.policy = name
        self.gva = gva
        self.pages = pages


class Move(NamedTuple):
    """The region has been moved: from where, to where, and the address that the guest mapped in it."""

    old: GVA
    new: GVA
    conflict: GVA


class RelocationPolicy(Protocol):
    """Says where the region goes."""

    def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA | None:
        """A place of so many free pages in a row, or None if there is none; the latest move comes last."""


class HighestHole:
    """The highest hole, but away from where conflicts have been lately, as long as there is another one.

    A guest that maps one address after the other, always where the region has just gone, would otherwise have it come
    back to the top as soon as it unmaps that.
    """

    def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA | None:
        zones = sorted(
            ((move.conflict - KEPT_AWAY, move.conflict + KEPT_AWAY) for move in history[-REMEMBERED:]), reverse=True
        )
        size = pages * PAGE_SIZE
        highest: GVA | None = None
        for start, found in space.holes(pages):
            end = start + found * PAGE_SIZE
            if highest is None:
                highest = GVA(end - size)
            for low, high in zones:  # from the top: each pushes the place down, if it lies there
                if low < end and high > end - size:
                    end = low >> PAGE_SHIFT << PAGE_SHIFT
            if end - size >= start:
                return GVA(end - size)
        return highest


class Fixed:
    """One place for ever; the guest can't have it. Raises RegionFixed when it wants it."""

    def __init__(self, gva: GVA) -> None:
        self.gva = gva

    def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA | None:
        if space.is_free(self.gva, pages):
            return self.gva
        free = 0
        while space.is_free(self.gva, free + 1):
            free += 1
        raise RegionFixed(self.gva, pages, free)


DEFAULT_POLICY = HighestHole()


def find_hole(
    space: FreeSpace, pages: int, policy: RelocationPolicy = DEFAULT_POLICY, history: Sequence[Move] = ()
) -> GVA:
    """Where the region of so many pages goes: a place where the guest maps nothing.

    Raises NoHole (RegionFixed) if there is none, SuggestionRefused if the policy names a place that isn't free.
    """
    gva = policy.suggest(space, pages, history)
    if gva is None:
        raise NoHole(pages, space.widest()[1])
    if gva % PAGE_SIZE or not space.is_free(gva, pages):
        raise SuggestionRefused(policy, gva, pages)
    return gva


def first_conflict(mirror: Mirror, region_base: int, region_size: int, linear: int, size: int) -> GVA | None:
    """The first page in [linear, linear + size) that both the region and the guest's tables map.

    ``size`` may go beyond the end of the linear space: (0, 2^64) is all of it, in any mode. A region that lies beyond
    it (it was put there under a 64-bit root, and the mirror is that of a 32-bit one) is in conflict at its base.
    """
    if region_base + region_size > mirror.end - PAGE_SIZE:  # the last page stays free
        return GVA(region_base)
    first = max(linear, region_base)
    for page in range(first, min(linear + size, region_base + region_size), PAGE_SIZE):
        if mirror.guest_page(page) is not None:
            return GVA(page)
    return None
