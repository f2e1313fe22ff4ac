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


@pytest.mark.parametrize(("file_class", "kind"), [(1, "elf32"), (2, "elf64")])
def test_segments_entry_and_symbols(file_class: int, kind: str) -> None:
    image = parse_elf(bytes(kernel(file_class=file_class)), "k")
    assert [(s.address, s.data, s.size) for s in image.segments] == [
        (0x100000, CODE, 16),
        (0x102000, b"data", 0x1000),
    ]
    assert (image.kind, image.entry, image.path) == (kind, 0x100000, "k")
    assert dict(image.symbols) == {"start": 0x100000, "main": 0x100008, "table": 0x102000}
    assert image.symbols.name_at(0x10000A) == "main+0x2"
    assert image.symbols.name_at(0x101000) is None


def test_physical_addresses_count() -> None:
    high = kernel(loads=[Load(0xC0100000, CODE, physical=0x100000)], entry=0xC0100004, symbols={"main": 0xC0100000})
    image = parse_elf(bytes(high), "k")
    assert (image.start, image.entry) == (0x100000, 0x100004)
    assert image.symbols.name_at(0xC0100004) == "main+0x4"


def test_a_64_bit_kernel_in_the_higher_half() -> None:
    top = 0xFFFFFFFF80000000
    loads = [Load(0x100000, CODE), Load(top + 0x200000, CODE, physical=0x200000)]
    high = kernel(file_class=2, loads=loads, symbols={"boot": 0x100000, "main": top + 0x200000})
    image = parse_elf(bytes(high), "k")
    assert (image.start, image.end, image.entry) == (0x100000, 0x200010, 0x100000)
    assert image.symbols.name_at(top + 0x200004) == "main+0x4"
    entered_there = kernel(file_class=2, loads=loads, entry=top + 0x200008, symbols={})
    assert parse_elf(bytes(entered_there), "k").entry == 0x200008


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
        ({"file_class": 3}, "ELF class 3 at offset 4: 1 (32-bit) or 2 (64-bit) is needed"),
        ({"file_class": 2, "machine": 3}, "ELF machine 3 at offset 18: 62 (x86-64) is needed"),
        ({"file_class": 2, "loads": [Load(0x1FFFFFFF0, CODE)]}, "segment 0: 0x10 bytes at 0x1fffffff0 go beyond 4 GiB"),
        ({"file_class": 2, "loads": [Load(0x100000, CODE, memory_size=1 << 63)]}, "0x8000000000000000 is absurd"),
        ({"file_class": 2, "header_offset": (1 << 64) - 16}, "goes beyond the end of the file"),
        ({"file_class": 2, "header_size": 32}, "program headers of 32 bytes each: they have 56"),
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


@pytest.mark.parametrize("file_class", [1, 2])
@pytest.mark.parametrize("size", [0, 3, 4, 16, 51])
def test_truncated_header(size: int, file_class: int) -> None:
    with pytest.raises(ImageError, match=f"truncated ELF header: {size} bytes"):
        parse_elf(bytes(kernel(file_class=file_class))[:size], "k")


WHOLE = [bytes(kernel(file_class=file_class)) for file_class in HEADER]


def parses_or_is_refused(data: bytes) -> None:
    try:
        image = parse_elf(data, "k")
    except ImageError:
        return
    assert all(segment.end <= 1 << 32 for segment in image.segments)
    assert any(image.entry in segment for segment in image.segments)
    list(image.symbols)


whole = st.sampled_from(WHOLE)
position = st.integers(0, len(WHOLE[1]) - 1)


@given(whole, position)
def test_any_truncation_is_refused_or_harmless(data: bytes, size: int) -> None:
    parses_or_is_refused(data[:size])


@given(whole, st.lists(st.tuples(position, st.integers(0, 255)), max_size=6))
def test_any_damage_is_refused_or_harmless(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for place, byte in damage:
        damaged[place % len(data)] = byte
    parses_or_is_refused(bytes(damaged))


@given(whole, st.binary(max_size=400))
def test_random_bytes_behind_a_good_identification(data: bytes, tail: bytes) -> None:
    parses_or_is_refused(data[:24] + tail)
