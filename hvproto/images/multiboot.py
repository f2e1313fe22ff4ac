"""Multiboot 1 (Multiboot Specification 0.6.96, 3.1): the header in a kernel."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.image import Image, Segment

HEADER_MAGIC = 0x1BADB002
SEARCH_SIZE = 8192
"""The header lies completely within this many bytes of the file's beginning, 4-byte aligned."""

_PAGE_ALIGN, _MEMORY_INFO, _VIDEO_MODE = 1 << 0, 1 << 1, 1 << 2
_ADDRESSES = 1 << 16
_MANDATORY = 0xFFFF
_KNOWN_MANDATORY = _PAGE_ALIGN | _MEMORY_INFO | _VIDEO_MODE
_VIDEO_FIELDS, _TEXT_WISH = 32, b"\1\0\0\0"
_ADDRESSED_SIZE = 32


@dataclass(frozen=True, slots=True)
class Addresses:
    """The a.out kludge: where in memory (GPA) the header, the data and the zeros go."""

    header: int
    load: int
    load_end: int
    bss_end: int
    entry: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header found at ``offset`` of the file; ``addresses`` if flag bit 16 is set."""

    offset: int
    flags: int
    addresses: Addresses | None


def find_header(data: bytes, path: str) -> Header | None:
    """The first valid header in the first 8192 bytes, None if there is none.

    Raises ``ImageError`` if it demands something that isn't provided (a mandatory flag bit), or is cut off.
    """
    for offset in range(0, min(len(data), SEARCH_SIZE) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, offset)
        if magic != HEADER_MAGIC or (magic + flags + checksum) & 0xFFFF_FFFF:
            continue
        if unknown := flags & _MANDATORY & ~_KNOWN_MANDATORY:
            bit = (unknown & -unknown).bit_length() - 1
            raise ImageError(path, f"multiboot header at offset {offset:#x}: flag bit {bit} demands something unknown")
        if flags & _VIDEO_MODE and data[offset + _VIDEO_FIELDS : offset + _VIDEO_FIELDS + 4] != _TEXT_WISH:
            raise ImageError(
                path,
                f"multiboot header at offset {offset:#x}: flag bit 2 demands a video mode; there is text mode only",
            )
        if not flags & _ADDRESSES:
            return Header(offset, flags, None)
        if offset + _ADDRESSED_SIZE > min(len(data), SEARCH_SIZE):
            raise ImageError(path, f"multiboot header at offset {offset:#x}: its addresses are cut off")
        return Header(offset, flags, Addresses(*struct.unpack_from("<5I", data, offset + 12)))
    return None


def addressed_image(data: bytes, path: str, header: Header) -> Image:
    """The image of a file whose multiboot header says where everything goes (a.out kludge, 3.1.3)."""
    where = f"multiboot header at offset {header.offset:#x}"
    to = header.addresses
    if to is None:
        raise ImageError(
            path, f"{where}: no addresses (flag bit 16) and not an ELF file, so nobody knows where it goes"
        )
    if to.header < to.load:
        raise ImageError(path, f"{where}: header_addr {to.header:#x} lies before load_addr {to.load:#x}")
    file_start = header.offset - (to.header - to.load)
    if file_start < 0:
        raise ImageError(
            path, f"{where}: load_addr {to.load:#x} would be {-file_start:#x} bytes before the file's beginning"
        )
    size = to.load_end - to.load if to.load_end else len(data) - file_start
    if size <= 0:
        raise ImageError(path, f"{where}: load_end_addr {to.load_end:#x} isn't behind load_addr {to.load:#x}")
    if file_start + size > len(data):
        raise ImageError(
            path, f"{where}: {size:#x} bytes from offset {file_start:#x} go beyond the file ({len(data):#x} bytes)"
        )
    end = to.bss_end or to.load + size
    if end < to.load + size:
        raise ImageError(path, f"{where}: bss_end_addr {end:#x} lies before the data's end {to.load + size:#x}")
    if to.load + size > 1 << 32:
        raise ImageError(path, f"{where}: {size:#x} bytes at {to.load:#x} go beyond 4 GiB")
    if not to.load <= to.entry < end:
        raise ImageError(path, f"{where}: entry_addr {to.entry:#x} lies outside {to.load:#x} to {end:#x}")
    segment = Segment(GPA(to.load), data[file_start : file_start + size], end - to.load)
    return Image(path, "multiboot", (segment,), GPA(to.entry))
