"""What a disk says of itself: the 256 words of IDENTIFY DRIVE (ANSI X3.221-1994, table 12)."""

from __future__ import annotations

from hvproto.machine.disk_image import SECTOR_SIZE

HEADS, SECTORS_PER_TRACK = 16, 63
MOST_MULTIPLE = 16
"""Sectors that READ and WRITE MULTIPLE can have in one block."""
_MOST_CYLINDERS = 16383


def identification(sectors: int, heads: int, per_track: int, multiple: int, serial: str) -> bytes:
    """The 512 bytes for a disk of so many sectors with the current geometry and block size (0: none is set)."""
    total = min(sectors, 1 << 28)
    current_cylinders = _cylinders(total, heads * per_track)
    by_chs = min(total, current_cylinders * heads * per_track)
    words = {0: 0x0040, 1: _cylinders(total, HEADS * SECTORS_PER_TRACK), 3: HEADS, 6: SECTORS_PER_TRACK}  # fixed disk
    words |= {4: SECTORS_PER_TRACK * SECTOR_SIZE, 5: SECTOR_SIZE, 47: 0x8000 | MOST_MULTIPLE}
    words |= {48: 1, 49: 0x0200, 51: 0x0200, 53: 1}  # 4-byte accesses; LBA; timing mode 2; words 54 to 58 count
    words |= {54: current_cylinders, 55: heads, 56: per_track, 59: 0x0100 | multiple if multiple else 0}
    words |= {57: by_chs & 0xFFFF, 58: by_chs >> 16, 60: total & 0xFFFF, 61: total >> 16, 80: 0x0002}
    for first, length, text in ((10, 10, serial), (23, 4, "1.0"), (27, 20, "hvproto disk")):
        # Text has its first character in the high byte of a word.
        padded = text.ljust(2 * length).encode("ascii")
        words |= {first + n: int.from_bytes(padded[2 * n : 2 * n + 2], "big") for n in range(length)}
    return b"".join(words.get(number, 0).to_bytes(2, "little") for number in range(256))


def _cylinders(total: int, per_cylinder: int) -> int:
    return max(1, min(_MOST_CYLINDERS, total // max(1, per_cylinder)))
