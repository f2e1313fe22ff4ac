"""Files that say nothing about themselves: loaded as they are, entered at their first byte."""

from __future__ import annotations

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.image import Image, Segment

FLAT_ADDRESS = GPA(0x100000)
"""Where flat images go unless asked otherwise: 1 MiB."""


def flat_image(data: bytes, path: str, address: int = FLAT_ADDRESS) -> Image:
    """The bytes of a file at ``address`` (GPA), which is the entry too."""
    if not 0 <= address < 1 << 32 or address + len(data) > 1 << 32:
        raise ImageError(path, f"{len(data):#x} bytes at {address:#x} aren't within 4 GiB")
    return Image(path, "flat", (Segment(GPA(address), data, len(data)),), GPA(address))
