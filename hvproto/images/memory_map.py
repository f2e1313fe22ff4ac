"""What a PC with so much RAM says it has: the ranges of INT 15h, E820h, and of the multiboot memory map."""

from __future__ import annotations

from dataclasses import dataclass

AVAILABLE, RESERVED = 1, 2
LOW_MEMORY_END = 0x9FC00
"""Behind conventional memory: 639 KiB, the last of the 640 being the firmware's extended data area."""
HIGH_MEMORY = 0x100000
_ROM = 0xF0000
_VIDEO = 0xA0000


@dataclass(frozen=True, slots=True)
class Range:
    """``length`` bytes from physical address ``base``; ``kind`` is AVAILABLE or RESERVED (ACPI 6.5, table 15.3)."""

    base: int
    length: int
    kind: int


def memory_map(ram_size: int) -> list[Range]:
    """The ranges for RAM of ``ram_size`` bytes from address 0, in order of address; the video memory is in none.

    >>> [(hex(r.base), hex(r.length), r.kind) for r in memory_map(2 << 20)][-1]
    ('0x100000', '0x100000', 1)
    """
    ranges = [Range(0, min(ram_size, LOW_MEMORY_END), AVAILABLE)]
    if ram_size > LOW_MEMORY_END:
        ranges.append(Range(LOW_MEMORY_END, _VIDEO - LOW_MEMORY_END, RESERVED))
        ranges.append(Range(_ROM, HIGH_MEMORY - _ROM, RESERVED))
    if ram_size > HIGH_MEMORY:
        ranges.append(Range(HIGH_MEMORY, ram_size - HIGH_MEMORY, AVAILABLE))
    return ranges
