"""Images of whole disks: a boot sector comes first, and only that is put into memory by whoever boots it."""

from __future__ import annotations

from dataclasses import replace

from hvproto.addresses import GPA
from hvproto.images.image import Image, Segment

BOOT_ADDRESS = GPA(0x7C00)
SECTOR_SIZE = 512
SIGNATURE = b"\x55\xaa"
"""The last two bytes of a boot sector."""


def is_disk(data: bytes) -> bool:
    """Whether the first sector is complete and has a boot sector's signature."""
    return data[SECTOR_SIZE - len(SIGNATURE) : SECTOR_SIZE] == SIGNATURE


def disk_image(data: bytes, path: str) -> Image:
    """The image of a disk with these contents."""
    return Image(path, "disk", (Segment(BOOT_ADDRESS, data[:SECTOR_SIZE], SECTOR_SIZE),), BOOT_ADDRESS, disk=data)


def assembled_disk(image: Image) -> Image:
    """The same image as a disk if it was assembled as one, to lie at 0x7C00 with a boot sector first."""
    (segment,) = image.segments
    if segment.address != BOOT_ADDRESS or not is_disk(segment.data):
        return image
    contents = segment.data.ljust(segment.size, b"\0")
    return replace(image, kind="disk", entry=BOOT_ADDRESS, disk=contents.ljust(-(-segment.size // 512) * 512, b"\0"))
