"""What one level of a guest's page tables means in its mode, worked out once for each mirror."""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.addresses import PAGE_SHIFT
from hvproto.processor.paging import NX, PAE, PS, PagingMode, reserved_bits
from hvproto.processor.settings import EFER_NXE


@dataclass(frozen=True, slots=True)
class Level:
    """One level: how a linear address selects an entry, and what the entry's bits may be."""

    number: int
    """0 is the root."""
    shift: int
    """The lowest bit of a linear address that selects an entry."""
    count: int
    """Entries of a table."""
    leaf: bool
    large: bool
    """Whether PS makes a large page here."""
    reserved: int
    """Bits that make a present entry fault, unless it is a large page."""
    reserved_large: int
    permissions: bool
    """Whether entries have W, U, A and NX: a PAE PDPTE has none of them."""
    no_execute: int
    """NX where it means something, or 0."""

    @property
    def pages(self) -> int:
        """Pages that one entry maps."""
        return 1 << self.shift - PAGE_SHIFT

    def is_reserved(self, entry: int) -> bool:
        """Whether a present entry has a reserved bit set, which makes it map nothing."""
        return bool(entry & (self.reserved_large if self.large and entry & PS else self.reserved))


def levels_of(mode: PagingMode) -> tuple[Level, ...]:
    """The levels of a mode, the root's first; none while paging is off."""
    fmt = mode.format
    if fmt is None:
        return ()
    found = []
    for number, (shift, bits) in enumerate(fmt.levels):
        leaf = number == fmt.depth - 1
        large = not leaf and mode.allows_large(fmt, number)
        permissions = not (fmt is PAE and number == 0)
        no_execute = NX if permissions and mode.efer & EFER_NXE and fmt.entry_size == 8 else 0
        small, big = reserved_bits(mode, fmt, number, 0), reserved_bits(mode, fmt, number, PS)
        found.append(Level(number, shift, 1 << bits, leaf, large, small, big, permissions, no_execute))
    return tuple(found)
