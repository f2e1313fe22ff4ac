from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.errors import ImageError
from hvproto.images.elf import parse_elf
from tests.images.elf_builder import HEADER, Elf, Load

CODE = b"\x90" * 15 + b"\xf4"


def kernel(**changes: object) -> Elf:
    options: dict[str, object] = {
        "loads": [Load(0x100000, CODE), Load(0x102000, b"data", memory_size=0x1000)],
        "symbols": {"start": 0x100000, "main": 0x100008, "table": 0x102000},
    }
    return Elf(**(options | changes))  # type: ignore[arg-type]


def test_segments_entry_and_symbols() -> None:
    image = parse_elf(bytes(kernel()), "k")
    assert [(s.address, s.data, s.size) for s in image.segments] == [
        (0x100000, CODE, 16),
        (0x102000, b"data", 0x1000),
    ]
    assert (image.kind, image.entry, image.path) == ("elf32", 0x100000, "k")
    assert dict(image.symbols) == {"start": 0x100000, "main": 0x100008, "table": 0x102000}
    assert image.symbols.name_at(0x10000A) == "main+0x2"
    assert image.symbols.name_at(0x101000) is None


def test_physical_addresses_count() -> None:
    high = kernel(loads=[Load(0xC0100000, CODE, physical=0x100000)], entry=0xC0100004, symbols={"main": 0xC0100000})
    image = parse_elf(bytes(high), "k")
    assert (image.start, image.entry) == (0x100000, 0x100004)
    assert image.symbols.name_at(0xC0100004) == "main+0x4"


def test_an_entry_that_is_physical_already() -> None:
    high = kernel(loads=[Load(0xC0100000, CODE, physical=0x100000)], entry=0x100004, symbols={})
    assert parse_elf(bytes(high), "k").entry == 0x100004


def test_a_stripped_file_has_no_symbols() -> None:
    assert len(parse_elf(bytes(kernel(symbols={})), "k").symbols) == 0


def test_other_program_headers_and_empty_loads_are_passed_over() -> None:
    loads = [Load(0x100000, CODE), Load(5, b"note", kind=4, offset=1 << 30), Load(0x100000, b"")]
    assert len(parse_elf(bytes(kernel(loads=loads)), "k").segments) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file_class": 2}, "ELF class 64-bit at offset 4"),
        ({"order": 2}, "ELF byte order big-endian at offset 5"),
        ({"file_type": 1}, "ELF type ET_REL (an object file) at offset 16"),
        ({"file_type": 3}, "ET_DYN"),
        ({"machine": 62}, "ELF machine 62 at offset 18"),
        ({"loads": [], "symbols": {}}, "no PT_LOAD segment"),
        ({"loads": [Load(0x100000, CODE, kind=4)]}, "no PT_LOAD segment"),
        ({"header_count": 0}, "no PT_LOAD segment"),
        ({"header_count": 1000}, "program header table (1000 x 32 bytes at offset 0x34) goes beyond the end"),
        ({"header_offset": 0xFFFFFFF0}, "goes beyond the end of the file"),
        ({"header_size": 8}, "program headers of 8 bytes each"),
        ({"loads": [Load(0x100000, CODE, file_size=0x9999, memory_size=0x9999)]}, "segment 0: its data (0x9999 bytes"),
        ({"loads": [Load(0x100000, CODE, offset=0xFFFFFFF0)]}, "goes beyond the end of the file"),
        ({"loads": [Load(0x100000, CODE, memory_size=4)]}, "size in memory 0x4 is less than size in the file 0x10"),
        ({"loads": [Load(0x100000, CODE, memory_size=0x7FFFFFFF)]}, "size in memory 0x7fffffff is absurd"),
        ({"loads": [Load(0xFFFFFFF8, CODE)]}, "go beyond 4 GiB"),
        ({"loads": [Load(0x100000, CODE), Load(0x10000F, CODE)]}, "0 and 1 overlap at physical address 0x10000f"),
        ({"entry": 0x5}, "the entry 0x5 lies in no segment"),
        ({"section_table": 0xFFFFFF00}, "broken"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageError, match=re.escape(reason)) as caught:
        parse_elf(bytes(kernel(**changes)), "some/kernel")
    assert caught.value.path == "some/kernel"


@pytest.mark.parametrize("size", [0, 3, 4, 16, HEADER - 1])
def test_truncated_header(size: int) -> None:
    with pytest.raises(ImageError, match=f"truncated ELF header: {size} bytes"):
        parse_elf(bytes(kernel())[:size], "k")


WHOLE = bytes(kernel())


def parses_or_is_refused(data: bytes) -> None:
    try:
        image = parse_elf(data, "k")
    except ImageError:
        return
    assert all(segment.end <= 1 << 32 for segment in image.segments)
    assert any(image.entry in segment for segment in image.segments)
    list(image.symbols)


@given(st.integers(0, len(WHOLE)))
def test_any_truncation_is_refused_or_harmless(size: int) -> None:
    parses_or_is_refused(WHOLE[:size])


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6))
def test_any_damage_is_refused_or_harmless(damage: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for position, byte in damage:
        data[position] = byte
    parses_or_is_refused(bytes(data))


@given(st.binary(max_size=400))
def test_random_bytes_behind_a_good_identification(tail: bytes) -> None:
    parses_or_is_refused(WHOLE[:24] + tail)
