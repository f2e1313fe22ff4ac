"""Cylinders, heads and sectors of a disk as the BIOS tells them, which needn't be what the drive itself says."""

from __future__ import annotations

from dataclasses import dataclass

_PARTITIONS, _ENTRY_SIZE = 0x1BE, 16
_MOST_CYLINDERS = 1024
_SECTORS = 63


@dataclass(frozen=True, slots=True)
class Geometry:
    """Cylinders and heads count from 0, sectors from 1."""

    cylinders: int
    heads: int
    sectors: int

    def lba(self, cylinder: int, head: int, sector: int) -> int | None:
        """The number of a sector, None if there is no such place; behind the last cylinder may lie more sectors."""
        if head >= self.heads or not 1 <= sector <= self.sectors:
            return None
        return (cylinder * self.heads + head) * self.sectors + sector - 1


def geometry(sectors: int, first_sector: bytes) -> Geometry:
    """Of a fixed disk: the one that the partition table was made for, or else 63 sectors and enough heads.

    >>> geometry(20 * 16 * 63, bytes(512))
    Geometry(cylinders=20, heads=16, sectors=63)
    """
    heads, per_track = _partitioned(first_sector) or (_heads(sectors), _SECTORS)
    return Geometry(max(1, min(_MOST_CYLINDERS, sectors // (heads * per_track))), heads, per_track)


def _heads(sectors: int) -> int:
    """The fewest with which all sectors are within reach, if any number is enough."""
    for heads in (16, 32, 64, 128):
        if sectors <= _MOST_CYLINDERS * heads * _SECTORS:
            return heads
    return 255


def _partitioned(first_sector: bytes) -> tuple[int, int] | None:
    """Heads and sectors per track, since partitions end with a cylinder."""
    for at in range(_PARTITIONS, _PARTITIONS + 4 * _ENTRY_SIZE, _ENTRY_SIZE):
        entry = first_sector[at : at + _ENTRY_SIZE]
        head, sector = entry[5], entry[6] & 0x3F
        size = int.from_bytes(entry[12:16], "little")
        if entry[0] in (0, 0x80) and entry[4] and size and head in (15, 31, 63, 127, 254) and sector == _SECTORS:
            return head + 1, sector
    return None
