"""Images of diskettes and partitions with a FAT12 file system (Microsoft, FAT32 File System Specification 1.03)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

SECTOR = 512
_FAT_COPIES, _ROOT_ENTRIES = 2, 112
_ROOT_SECTORS = _ROOT_ENTRIES * 32 // SECTOR
_FREE_AFTER_EACH = 3
"""Clusters left free between two of one file: a chain that isn't followed gives other bytes."""


def file_system(
    boot_code: bytes,
    files: Mapping[str, bytes],
    sectors: int,
    shape: tuple[int, int],
    *,
    hidden: int = 0,
    drive: int = 0,
) -> bytes:
    """A volume with one sector a cluster; ``shape`` is heads and sectors per track, ``hidden`` the sectors before it.

    ``boot_code`` is a boot sector whose bytes 3 to 61 are for the parameters. Names are of eight and three letters.
    """
    fat_sectors = -(-(sectors * 3 // 2) // SECTOR)
    heads, per_track = shape
    parameters = struct.pack(
        "<8sHBHBHHBHHHIIBBBI11s8s", b"HVPROTO ", SECTOR, 1, 1, _FAT_COPIES, _ROOT_ENTRIES, sectors, 0xF0, fat_sectors,
        per_track, heads, hidden, 0, drive, 0, 0x29, 0x12345678, b"TEST       ", b"FAT12   ",
    )  # fmt: skip
    table, data, entries = [0xFF0, 0xFFF], [], []
    for name, contents in files.items():
        clusters = _place(table, data, contents)
        base, _, extension = name.partition(".")
        entries.append(
            struct.pack(
                "<8s3sB14xHI", base.ljust(8).encode(), extension.ljust(3).encode(), 0x20, clusters[0], len(contents)
            )
        )
    boot = boot_code[:3] + parameters + boot_code[3 + len(parameters) :]
    fat = _packed(table).ljust(fat_sectors * SECTOR, b"\0")
    volume = boot + fat * _FAT_COPIES + b"".join(entries).ljust(_ROOT_SECTORS * SECTOR, b"\0") + b"".join(data)
    assert len(volume) <= sectors * SECTOR
    return volume.ljust(sectors * SECTOR, b"\0")


def _place(table: list[int], data: list[bytes], contents: bytes) -> list[int]:
    """Put a file into clusters that aren't neighbours."""
    pieces = [contents[at : at + SECTOR].ljust(SECTOR, b"\0") for at in range(0, len(contents), SECTOR)]
    clusters = []
    for piece in pieces:
        clusters.append(len(table))
        table += [0] * (1 + _FREE_AFTER_EACH)
        data += [piece, *[b"\xcc" * SECTOR] * _FREE_AFTER_EACH]
    for cluster, following in zip(clusters, [*clusters[1:], 0xFFF], strict=True):
        table[cluster] = following
    return clusters


def _packed(table: Sequence[int]) -> bytes:
    """Two entries of 12 bits in three bytes."""
    padded = [*table, *[0] * (len(table) % 2)]
    pairs = zip(padded[::2], padded[1::2], strict=True)
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)
