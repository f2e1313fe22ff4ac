"""The MP table, found and read as a kernel does it."""

import struct

import pytest

from hvproto.machine.mp_table import build


def memory(parts: list[tuple[int, bytes]]) -> bytes:
    """The first megabyte with the tables in it."""
    ram = bytearray(1 << 20)
    for address, data in parts:
        assert not any(ram[address : address + len(data)])
        ram[address : address + len(data)] = data
    return bytes(ram)


def find(ram: bytes) -> bytes:
    places = [p for p in range(0xF0000, 0x100000, 16) if ram[p : p + 4] == b"_MP_" and sum(ram[p : p + 16]) % 256 == 0]
    assert len(places) == 1
    return ram[places[0] : places[0] + 16]


def entries(table: bytes) -> list[bytes]:
    found = []
    place = 44
    while place < len(table):
        size = 20 if table[place] == 0 else 8
        found.append(table[place : place + size])
        place += size
    return found


@pytest.mark.parametrize("address", [0xF0000, 0xF5A00, 0xFDFF0])
def test_a_kernel_finds_it(address: int) -> None:
    ram = memory(build(address))
    pointer = find(ram)
    table_at, length, version = struct.unpack_from("<IBB", pointer, 4)
    assert (length, version, pointer[11:]) == (1, 4, bytes(5))
    signature, size, revision = struct.unpack_from("<4sHB", ram, table_at)
    table = ram[table_at : table_at + size]
    assert (signature, revision, sum(table) % 256) == (b"PCMP", 4, 0)
    count, lapic_at, extended = struct.unpack_from("<HIH", table, 34)
    assert (count, lapic_at, extended) == (len(entries(table)), 0xFEE00000, 0)
    assert struct.unpack_from("<IH", table, 28) == (0, 0)


def test_what_it_says() -> None:
    table = build(lapic_id=2, ioapic_id=5, signature=0x10633, features=0x387F9FF)[1][1]
    by_kind: dict[int, list[bytes]] = {}
    for entry in entries(table):
        by_kind.setdefault(entry[0], []).append(entry)
    assert list(by_kind) == [0, 1, 2, 3, 4]  # in this order, the specification demands
    assert by_kind[0] == [struct.pack("<BBBBIIII", 0, 2, 0x14, 3, 0x633, 0x387F9FF, 0, 0)]
    assert by_kind[1] == [b"\x01\x00ISA   "]
    assert by_kind[2] == [struct.pack("<BBBBI", 2, 5, 0x11, 1, 0xFEC00000)]
    inputs = [struct.unpack("<BHBBBB", entry[1:]) for entry in by_kind[3]]
    assert inputs[0] == (3, 0, 0, 0, 5, 0)
    assert all(entry[:3] == (0, 0, 0) and entry[4] == 5 for entry in inputs[1:])
    assert {entry[3]: entry[5] for entry in inputs[1:]} == {0: 2, 1: 1} | {n: n for n in range(3, 16)}
    assert [struct.unpack("<BHBBBB", e[1:]) for e in by_kind[4]] == [(3, 0, 0, 0, 2, 0), (1, 0, 0, 0, 0xFF, 1)]


@pytest.mark.parametrize("address", [0xF5A08, 0xEFFF0, 0xFFFF0, 0xFFF20, 0x100000])
def test_where_it_cannot_be(address: int) -> None:
    with pytest.raises(ValueError, match="no MP table"):
        build(address)
