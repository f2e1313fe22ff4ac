"""The ACPI tables, found and read as a kernel does it; the DSDT by a small reader of AML."""

import struct
from collections.abc import Iterator

import pytest

from hvproto.machine import aml
from hvproto.machine.acpi_tables import build


def memory(parts: list[tuple[int, bytes]]) -> bytes:
    """The first megabyte with the tables in it."""
    ram = bytearray(1 << 20)
    for address, data in parts:
        assert not any(ram[address : address + len(data)])
        ram[address : address + len(data)] = data
    return bytes(ram)


def table(ram: bytes, address: int) -> bytes:
    data = ram[address : address + struct.unpack_from("<I", ram, address + 4)[0]]
    assert sum(data) % 256 == 0
    return data


class Tables:
    def __init__(self, area: int = 0xF6000, **settings: int) -> None:
        ram = memory(build(area, **settings))
        places = [p for p in range(0xE0000, 0x100000, 16) if ram[p : p + 8] == b"RSD PTR "]
        assert len(places) == 1
        root = ram[places[0] : places[0] + 20]
        assert sum(root) % 256 == 0
        assert root[15] == 0
        rsdt = table(ram, struct.unpack_from("<I", root, 16)[0])
        assert rsdt[:4] == b"RSDT"
        listed = [table(ram, address) for (address,) in struct.iter_unpack("<I", rsdt[36:])]
        self.by_signature = {found[:4]: found for found in listed}
        self.fadt, self.madt = self.by_signature[b"FACP"], self.by_signature[b"APIC"]
        self.facs_at, self.dsdt_at = struct.unpack_from("<II", self.fadt, 36)
        self.facs = ram[self.facs_at : self.facs_at + 64]
        self.dsdt = table(ram, self.dsdt_at)


@pytest.mark.parametrize("area", [0xE0000, 0xE0010, 0xF6000, 0xFDC00])
def test_a_kernel_finds_them(area: int) -> None:
    tables = Tables(area)
    assert list(tables.by_signature) == [b"FACP", b"APIC"]
    assert (tables.fadt[8], tables.madt[8], tables.dsdt[8]) == (1, 1, 1)
    assert tables.facs_at % 64 == 0
    assert tables.facs == b"FACS" + struct.pack("<I", 64) + bytes(56)
    assert tables.dsdt[:4] == b"DSDT"
    for found in (tables.fadt, tables.madt, tables.dsdt):
        assert found[10:24] == b"HVPROTHVPROTO "


@pytest.mark.parametrize("area", [0xE0008, 0xDFFF0, 0xFFF00, 0x100000])
def test_where_they_cannot_be(area: int) -> None:
    with pytest.raises(ValueError, match="no ACPI tables"):
        build(area)


def test_fixed_description() -> None:
    fadt = Tables(century=0x32).fadt
    assert len(fadt) == 116

    def byte(offset: int) -> int:
        return fadt[offset]

    def word(offset: int) -> int:
        return int.from_bytes(fadt[offset : offset + 2], "little")

    def dword(offset: int) -> int:
        return int.from_bytes(fadt[offset : offset + 4], "little")

    assert (byte(44), word(46), dword(48), fadt[52:56]) == (1, 9, 0, bytes(4))
    assert [dword(offset) for offset in range(56, 88, 4)] == [0xB000, 0, 0xB004, 0, 0, 0xB008, 0, 0]
    assert list(fadt[88:96]) == [4, 2, 0, 4, 0, 0, 0, 0]
    assert (word(96), word(98)) == (101, 1001)
    assert (byte(108), dword(112)) == (0x32, 0x65)


def test_interrupt_controllers() -> None:
    madt = Tables(lapic_id=3, ioapic_id=4).madt
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    entries = []
    place = 44
    while place < len(madt):
        kind, length = madt[place], madt[place + 1]
        entries.append((kind, madt[place + 2 : place + length]))
        place += length
    assert entries == [
        (0, struct.pack("<BBI", 0, 3, 1)),
        (1, struct.pack("<BBII", 4, 0, 0xFEC00000, 0)),
        (2, struct.pack("<BBIH", 0, 0, 2, 0)),
        (2, struct.pack("<BBIH", 0, 9, 9, 0x000D)),
        (4, struct.pack("<BHB", 0xFF, 0, 1)),
    ]


# -- the DSDT -----------------------------------------------------------------------------------------------------------


class Reader:
    """Names and their values in AML, for what a DSDT of this kind has in it."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.names: dict[str, object] = {}
        self.terms(0, len(code), "")

    def terms(self, place: int, end: int, prefix: str) -> None:
        while place < end:
            opcode = self.code[place]
            if opcode == 0x08:
                name, place = self.path(place + 1, prefix)
                self.names[name], place = self.value(place)
            elif opcode == 0x10 or self.code[place : place + 2] in (b"\x5b\x82", b"\x5b\x83"):
                place += 1 if opcode == 0x10 else 2
                processor = opcode != 0x10 and self.code[place - 1] == 0x83
                start, stop = self.length(place)
                name, start = self.path(start, prefix)
                if processor:
                    self.names[name] = struct.unpack_from("<BIB", self.code, start)
                    start += 6
                self.terms(start, stop, name + ".")
                place = stop
            else:
                raise AssertionError(f"opcode {opcode:#x} at {place:#x}")
        assert place == end

    def path(self, place: int, prefix: str) -> tuple[str, int]:
        if self.code[place] == ord("\\"):
            prefix, place = "\\", place + 1
        return prefix + self.code[place : place + 4].decode(), place + 4

    def length(self, place: int) -> tuple[int, int]:
        """Where the content begins and ends."""
        more = self.code[place] >> 6
        length = self.code[place] & (0x0F if more else 0x3F)
        for n in range(more):
            length |= self.code[place + 1 + n] << 4 + 8 * n
        return place + 1 + more, place + length

    def value(self, place: int) -> tuple[object, int]:
        opcode = self.code[place]
        if opcode in (0, 1):
            return opcode, place + 1
        if opcode in (0x0A, 0x0B, 0x0C):
            size = 1 << opcode - 0x0A
            return int.from_bytes(self.code[place + 1 : place + 1 + size], "little"), place + 1 + size
        start, stop = self.length(place + 1)
        if opcode == 0x11:
            announced, start = self.value(start)
            assert announced == stop - start
            return self.code[start:stop], stop
        assert opcode == 0x12
        count, start, elements = self.code[start], start + 1, []
        while start < stop:
            element, start = self.value(start)
            elements.append(element)
        assert (start, len(elements)) == (stop, count)
        return elements, stop


def descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(data):
        tag = data[place]
        if tag & 0x80:
            size = struct.unpack_from("<H", data, place + 1)[0]
            yield tag, data[place + 3 : place + 3 + size]
            place += 3 + size
        else:
            yield tag >> 3, data[place + 1 : place + 1 + (tag & 7)]
            place += 1 + (tag & 7)


def test_how_to_switch_off() -> None:
    assert Reader(Tables().dsdt[36:]).names["\\_S5_"] == [0, 0, 0, 0]
    assert Reader(Tables(sleep_type=5).dsdt[36:]).names["\\_S5_"] == [5, 5, 0, 0]


def test_the_processor_and_the_host_bridge() -> None:
    names = Reader(Tables().dsdt[36:]).names
    assert names["\\_PR_.CPU0"] == (0, 0, 0)
    assert names["\\_SB_.PCI0._HID"] == 0x030AD041  # PNP0A03
    assert names["\\_SB_.PCI0._UID"] == 0
    resources = names["\\_SB_.PCI0._CRS"]
    assert isinstance(resources, bytes)
    found = list(descriptors(resources))
    assert found[1] == (8, struct.pack("<BHHBB", 1, 0xCF8, 0xCF8, 1, 8))
    assert found[-1] == (0xF, b"\0")
    ranges = []
    for tag, data in found:
        if tag in (0x87, 0x88):
            granularity, first, last, offset, count = struct.unpack("<5I" if tag == 0x87 else "<5H", data[3:])
            assert (granularity, offset, count, data[1]) == (0, 0, last - first + 1, 0x0C)
            ranges.append((data[0], first, last))
    assert ranges == [
        (2, 0, 0xFF),
        (1, 0, 0xCF7),
        (1, 0xD00, 0xFFFF),
        (0, 0xA0000, 0xBFFFF),
        (0, 0xE0000000, 0xFEBFFFFF),
    ]


@pytest.mark.parametrize("value", [0, 1, 2, 0xFF, 0x100, 0xFFFF, 0x10000, 0xFFFF_FFFF])
def test_integers_are_read_back(value: int) -> None:
    assert Reader(aml.name("ABCD", aml.integer(value))).names == {"ABCD": value}


@pytest.mark.parametrize("size", [0, 1, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0xFF, 0xFF8, 0xFF9, 0xFFA, 0xFFB, 0x5000])
def test_lengths_of_every_width(size: int) -> None:
    names = Reader(aml.scope("\\_SB", aml.name("BUF", aml.buffer(bytes(size))))).names
    assert names == {"\\_SB_.BUF_": bytes(size)}


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        aml.integer(1 << 32)
    with pytest.raises(ValueError, match="too long"):
        aml.buffer(bytes(1 << 20))
