"""An encoder for the few terms of ACPI machine language that a small DSDT needs (ACPI specification 2.0, chapter 17).

Every function returns the bytes of one term. Resource descriptors are those of chapter 6.4.
"""

from __future__ import annotations

import struct

BUS_NUMBERS, PORTS, MEMORY = 2, 1, 0
"""What an address range consists of."""
_FIXED_RANGE = 0x0C  # neither end can move; decoded by the bridge for what is behind it
_RANGE_FLAGS = {BUS_NUMBERS: 0, PORTS: 0x03, MEMORY: 0x01}  # ports: ISA's and others'; memory: writable, not cached


def integer(value: int) -> bytes:
    """An integer of 0 to 2^32 - 1, as short as it goes."""
    if value < 2:
        return bytes((value,))
    for prefix, layout in ((0x0A, "<B"), (0x0B, "<H"), (0x0C, "<I")):
        if value < 1 << 8 * struct.calcsize(layout):
            return bytes((prefix,)) + struct.pack(layout, value)
    raise ValueError(f"{value:#x} has more than 32 bits")


def path(name: str) -> bytes:
    r"""A name of one segment, with ``\`` in front if it is absolute; segments of fewer than four letters are filled."""
    root, segment = (b"\\", name[1:]) if name.startswith("\\") else (b"", name)
    return root + segment.ljust(4, "_").encode("ascii")


def name(name: str, value: bytes) -> bytes:
    """Name(name, value)."""
    return b"\x08" + path(name) + value


def scope(name: str, *terms: bytes) -> bytes:
    """Scope(name) { terms }."""
    return b"\x10" + _package(path(name) + b"".join(terms))


def device(name: str, *terms: bytes) -> bytes:
    """Device(name) { terms }."""
    return b"\x5b\x82" + _package(path(name) + b"".join(terms))


def processor(name: str, identifier: int) -> bytes:
    """Processor(name, identifier, 0, 0) {}: one without a block of registers."""
    return b"\x5b\x83" + _package(path(name) + struct.pack("<BIB", identifier, 0, 0))


def package(*elements: bytes) -> bytes:
    """Package() { elements }."""
    return b"\x12" + _package(bytes((len(elements),)) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """Buffer() { data }."""
    return b"\x11" + _package(integer(len(data)) + data)


def eisa_id(text: str) -> bytes:
    """EisaId("PNP0A03"), say: three letters of five bits each, four hexadecimal digits, the upper byte first."""
    letters = [ord(letter) - ord("@") for letter in text[:3]]
    packed = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return b"\x0c" + packed.to_bytes(4, "big")


def resources(*descriptors: bytes) -> bytes:
    """ResourceTemplate() { descriptors }; the checksum 0 of the end tag means that there is none."""
    return buffer(b"".join(descriptors) + b"\x79\x00")


def ports(first: int, count: int) -> bytes:
    """IO(Decode16, first, first, 1, count): ports that the device itself uses, up to 255."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def address_range(kind: int, first: int, last: int) -> bytes:
    """WordBusNumber, WordIO or DWordMemory, by ``kind``: what a bridge passes on."""
    tag, layout = (0x87, "<BHBBBIIIII") if kind == MEMORY else (0x88, "<BHBBBHHHHH")
    length = struct.calcsize(layout) - 3
    return struct.pack(layout, tag, length, kind, _FIXED_RANGE, _RANGE_FLAGS[kind], 0, first, last, 0, last - first + 1)


def _package(content: bytes) -> bytes:
    """``content`` behind its length, which includes the 1 to 3 bytes of the length itself."""
    if len(content) < 0x3F:
        return bytes((len(content) + 1,)) + content
    for more in (1, 2):
        length = len(content) + 1 + more
        if length < 1 << 4 + 8 * more:
            return bytes((more << 6 | length & 0xF,)) + (length >> 4).to_bytes(more, "little") + content
    raise ValueError(f"a term of {len(content)} bytes is too long")
