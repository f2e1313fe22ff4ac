"""Multiboot 1 (Multiboot Specification 0.6.96): the header in a kernel, and the information handed to it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.image import Image, Segment

HEADER_MAGIC = 0x1BADB002
BOOT_MAGIC = 0x2BADB002
"""What EAX holds at the kernel's entry."""

SEARCH_SIZE = 8192
"""The header lies completely within this many bytes of the file's beginning, 4-byte aligned."""

INFO_ADDRESS = GPA(0x9000)
"""Where the information is put unless asked otherwise: below the BIOS area, above the interrupt vectors."""

_PAGE_ALIGN, _MEMORY_INFO, _VIDEO_MODE = 1 << 0, 1 << 1, 1 << 2
_ADDRESSES = 1 << 16
_MANDATORY = 0xFFFF
_KNOWN_MANDATORY = _PAGE_ALIGN | _MEMORY_INFO
_ADDRESSED_SIZE = 32

_INFO_MEMORY, _INFO_COMMAND_LINE, _INFO_MEMORY_MAP, _INFO_LOADER_NAME = 1 << 0, 1 << 2, 1 << 6, 1 << 9
_INFO_SIZE = 88
_LOW_MEMORY_END = 0x9F000
_HIGH_MEMORY = 0x100000
_AVAILABLE, _RESERVED = 1, 2
_MAX_COMMAND_LINE = 4096


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


@dataclass(frozen=True, slots=True)
class BootInfo:
    """``segments`` to put into memory, and the registers at the kernel's entry."""

    segments: tuple[Segment, ...]
    ebx: GPA
    eax: int = BOOT_MAGIC


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
            wish = "a video mode" if unknown & _VIDEO_MODE else "something unknown"
            raise ImageError(path, f"multiboot header at offset {offset:#x}: flag bit {bit} demands {wish}")
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


def build_info(
    ram_size: int,
    command_line: str = "",
    loader_name: str = "hvproto",
    address: GPA = INFO_ADDRESS,
) -> BootInfo:
    """The information structure (3.3) for a machine of ``ram_size`` bytes, put at ``address``.

    It holds mem_lower and mem_upper, the memory map, the command line and the loader's name. Raises
    ``ValueError`` if RAM ends before the structure does, or the command line is too long or holds a NUL.
    """
    line, name = command_line.encode(), loader_name.encode()
    if len(line) > _MAX_COMMAND_LINE or b"\0" in line + name:
        raise ValueError(f"the command line has at most {_MAX_COMMAND_LINE} bytes and no NUL")
    memory_map = b"".join(struct.pack("<IQQI", 20, *entry) for entry in _memory_map(ram_size))
    map_address = address + _INFO_SIZE
    line_address = map_address + len(memory_map)
    name_address = line_address + len(line) + 1
    info = struct.pack(
        "<12I",
        _INFO_MEMORY | _INFO_COMMAND_LINE | _INFO_MEMORY_MAP | _INFO_LOADER_NAME,
        min(ram_size, _LOW_MEMORY_END) >> 10,
        max(ram_size - _HIGH_MEMORY, 0) >> 10,
        0,
        line_address,
        *(0, 0, 0, 0, 0, 0),
        len(memory_map),
    )
    info += struct.pack("<5I", map_address, 0, 0, 0, name_address)
    data = info.ljust(_INFO_SIZE, b"\0") + memory_map + line + b"\0" + name + b"\0"
    if address % 4 or address < 0 or address + len(data) > ram_size:
        raise ValueError(f"no room for {len(data)} bytes at {address:#x} in {ram_size:#x} bytes of RAM")
    return BootInfo((Segment(address, data, len(data)),), address)


def _memory_map(ram_size: int) -> list[tuple[int, int, int]]:
    """(base, length, type) of each range: low memory, the reserved hole up to 1 MiB, the rest."""
    ranges = [(0, min(ram_size, _LOW_MEMORY_END), _AVAILABLE)]
    if ram_size > _LOW_MEMORY_END:
        ranges.append((_LOW_MEMORY_END, _HIGH_MEMORY - _LOW_MEMORY_END, _RESERVED))
    if ram_size > _HIGH_MEMORY:
        ranges.append((_HIGH_MEMORY, ram_size - _HIGH_MEMORY, _AVAILABLE))
    return ranges
