"""Segment descriptors and the hidden part of segment registers (Intel SDM vol. 3, 3.4 and 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class SegmentRegister(IntEnum):
    """The segment registers in their machine encoding (SDM vol. 2, table 3-1: Sreg)."""

    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5

    __hash__ = int.__hash__  # that of its name is computed in Python, each time


# Bits of ``Segment.attributes``: those of the descriptor's high doubleword, in place.
TYPE_SHIFT = 8
TYPE_MASK = 0xF << TYPE_SHIFT
ACCESSED = 1 << 8
WRITABLE = 1 << 9  # of data; READABLE of code
READABLE = 1 << 9
CONFORMING = 1 << 10  # of code; expand-down of data
CODE = 1 << 11
S_BIT = 1 << 12  # code or data; clear: a system descriptor
DPL_SHIFT = 13
DPL_MASK = 3 << DPL_SHIFT
PRESENT = 1 << 15
LONG = 1 << 21
DEFAULT_BIG = 1 << 22
GRANULARITY = 1 << 23
ATTRIBUTE_MASK = 0x00F0_FF00

RPL_MASK = 3
TABLE_INDICATOR = 4  # of a selector: set for the LDT

TSS16_AVAILABLE = 0x1
TSS_BUSY_BIT = 0x2
TSS32_BIT = 0x8
TSS32_AVAILABLE = 0x9
TSS32_BUSY = 0xB
SYSTEM_LDT = 0x2


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register: selector and hidden part.

    ``base`` is a linear address, ``limit`` the last valid offset in bytes (granularity already
    applied), ``attributes`` the descriptor's bits 8-15 and 20-23 of the high doubleword, in place.
    """

    selector: int
    base: int = 0
    limit: int = 0
    attributes: int = 0

    @property
    def present(self) -> bool:
        return bool(self.attributes & PRESENT)

    @property
    def dpl(self) -> int:
        """Descriptor privilege level, 0-3."""
        return (self.attributes & DPL_MASK) >> DPL_SHIFT

    @property
    def rpl(self) -> int:
        """Requestor privilege level of the selector, 0-3."""
        return self.selector & RPL_MASK

    @property
    def is_system(self) -> bool:
        return not self.attributes & S_BIT

    @property
    def is_code(self) -> bool:
        return bool(self.attributes & S_BIT) and bool(self.attributes & CODE)

    @property
    def is_writable_data(self) -> bool:
        return self.attributes & (S_BIT | CODE | WRITABLE) == S_BIT | WRITABLE

    @property
    def is_readable(self) -> bool:
        """Readable through a data-segment register: any data, or readable code."""
        return bool(self.attributes & S_BIT) and (not self.is_code or bool(self.attributes & READABLE))

    @property
    def is_conforming(self) -> bool:
        return self.is_code and bool(self.attributes & CONFORMING)

    @property
    def system_type(self) -> int:
        """The 4-bit type of a system descriptor."""
        return (self.attributes & TYPE_MASK) >> TYPE_SHIFT

    @property
    def is_32bit(self) -> bool:
        return bool(self.attributes & DEFAULT_BIG)

    def with_dpl(self, dpl: int) -> Segment:
        """The same segment with another descriptor privilege level."""
        return Segment(self.selector, self.base, self.limit, self.attributes & ~DPL_MASK | dpl << DPL_SHIFT)

    def accessed(self) -> Segment:
        """The same segment with its accessed bit set, as a segment register holds it."""
        return Segment(self.selector, self.base, self.limit, self.attributes | ACCESSED)

    def with_selector(self, selector: int) -> Segment:
        return Segment(selector, self.base, self.limit, self.attributes)


NULL_SEGMENT = Segment(0)


@dataclass(frozen=True, slots=True)
class TableRegister:
    """GDTR or IDTR: linear base address and limit (last valid byte offset)."""

    base: int
    limit: int


def decode_descriptor(selector: int, descriptor: int) -> Segment:
    """The segment register that loading ``selector`` with this 8-byte descriptor gives.

    >>> decode_descriptor(0x08, 0x00CF9A000000FFFF)
    Segment(selector=8, base=0, limit=4294967295, attributes=12622336)
    """
    low, high = descriptor & 0xFFFF_FFFF, descriptor >> 32
    limit = (low & 0xFFFF) | (high & 0x000F_0000)
    if high & GRANULARITY:
        limit = limit << 12 | 0xFFF
    base = (low >> 16) | (high & 0xFF) << 16 | (high & 0xFF00_0000)
    return Segment(selector, base, limit, high & ATTRIBUTE_MASK)


def encode_descriptor(segment: Segment) -> int:
    """The 8-byte descriptor for a segment; the inverse of `decode_descriptor`.

    A limit of more than 1 MiB - 1 is stored in 4 KiB units and rounds up to one.
    """
    attributes = segment.attributes & ATTRIBUTE_MASK
    limit = segment.limit
    if limit > 0xFFFFF:
        attributes |= GRANULARITY
    if attributes & GRANULARITY:
        limit >>= 12
    base = segment.base
    low = (limit & 0xFFFF) | (base & 0xFFFF) << 16
    high = (base >> 16 & 0xFF) | attributes | (limit & 0xF0000) | (base & 0xFF00_0000)
    return high << 32 | low


def flat(selector: int, *, code: bool, dpl: int) -> Segment:
    """A 4 GiB segment from linear address 0, accessed bit set."""
    kind = CODE | READABLE if code else WRITABLE
    attributes = GRANULARITY | DEFAULT_BIG | PRESENT | S_BIT | kind | ACCESSED | dpl << DPL_SHIFT
    return Segment(selector, 0, 0xFFFF_FFFF, attributes)


def v86_segment(selector: int) -> Segment:
    """What a selector stands for in virtual-8086 mode (SDM vol. 3, 20.1.1): the 64 KiB from 16 times its value."""
    return Segment(selector, selector << 4, 0xFFFF, PRESENT | DPL_MASK | S_BIT | WRITABLE | ACCESSED)


def encode_gate(selector: int, offset: int, *, dpl: int = 0, trap: bool = False, present: bool = True) -> int:
    """An 8-byte 32-bit interrupt or trap gate (SDM vol. 3, figure 6-2). ``offset`` is relative to the segment."""
    kind = (0xF if trap else 0xE) | dpl << 5 | (0x80 if present else 0)
    return (offset & 0xFFFF) | selector << 16 | kind << 40 | (offset >> 16 & 0xFFFF) << 48
