from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.addresses import GPA
from hvproto.errors import ImageError
from hvproto.images.multiboot import addressed_image, find_header
from hvproto.images.multiboot_info import build_info

MAGIC = 0x1BADB002


def header(flags: int = 0, *addresses: int) -> bytes:
    return struct.pack("<III", MAGIC, flags, -(MAGIC + flags) & 0xFFFFFFFF) + struct.pack(
        f"<{len(addresses)}I", *addresses
    )


def test_header_is_found_on_any_4_byte_boundary() -> None:
    found = find_header(b"\x90" * 4096 + header(3), "k")
    assert found is not None
    assert (found.offset, found.flags, found.addresses) == (4096, 3, None)


@pytest.mark.parametrize(
    "data",
    [b"", header()[:8], b"\x90" + header(), bytes(8192) + header(), bytes(8184) + header(), header()[:8] + b"\0\0\0\0"],
)
def test_no_header(data: bytes) -> None:
    assert find_header(data, "k") is None


@pytest.mark.parametrize("bit", [2, 3, 7, 15])
def test_unknown_mandatory_flags_are_named(bit: int) -> None:
    with pytest.raises(ImageError, match=rf"at offset 0x8: flag bit {bit} demands"):
        find_header(bytes(8) + header(1 << bit), "k")


def test_optional_flags_are_ignored() -> None:
    assert find_header(header(1 << 17), "k") is not None


def addressed(data: bytes) -> tuple[int, bytes, int, int]:
    found = find_header(data, "k")
    assert found is not None
    image = addressed_image(data, "k", found)
    assert image.kind == "multiboot"
    (segment,) = image.segments
    return segment.address, segment.data, segment.size, image.entry


def test_addresses_say_where_everything_goes() -> None:
    data = b"skip" + b"\x90" * 8 + header(1 << 16, 0x100008, 0x100000, 0x10002C, 0x100100, 0x100000) + b"code"
    assert addressed(data) == (0x100000, data[4:48], 0x100, 0x100000)


def test_end_addresses_of_zero_mean_all_of_the_file_and_no_zeros() -> None:
    data = header(1 << 16, 0x100000, 0x100000, 0, 0, 0x100020) + b"code"
    assert addressed(data) == (0x100000, data, len(data), 0x100020)


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ((0x100000, 0x100004, 0, 0, 0x100004), "header_addr 0x100000 lies before load_addr"),
        ((0x100004, 0x100000, 0, 0, 0x100000), "0x4 bytes before the file's beginning"),
        ((0x100000, 0x100000, 0x100000, 0, 0x100000), "isn't behind load_addr"),
        ((0x100000, 0x100000, 0x101000, 0, 0x100000), "go beyond the file"),
        ((0x100000, 0x100000, 0, 0x100001, 0x100000), "bss_end_addr 0x100001 lies before the data's end"),
        ((0x100000, 0x100000, 0, 0, 0x5), "entry_addr 0x5 lies outside"),
        ((0xFFFFFFF8, 0xFFFFFFF8, 0, 0, 0xFFFFFFF8), "beyond 4 GiB"),
    ],
)
def test_addresses_that_make_no_sense(addresses: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        addressed(header(1 << 16, *addresses) + b"code")


def test_addresses_that_are_cut_off() -> None:
    with pytest.raises(ImageError, match="cut off"):
        find_header(header(1 << 16, 1, 2), "k")


def test_no_addresses_and_no_elf() -> None:
    with pytest.raises(ImageError, match="nobody knows where it goes"):
        addressed(header())


@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=5, max_size=5), st.binary(max_size=64))
def test_any_addresses_load_or_are_refused(addresses: list[int], rest: bytes) -> None:
    try:
        addressed(header(1 << 16, *addresses) + rest)
    except ImageError:
        pass


@given(st.integers(0x200000, 1 << 31), st.text("ab =/", max_size=50))
def test_information_says_what_the_machine_has(ram_size: int, line: str) -> None:
    info = build_info(ram_size, line, "loader", GPA(0xA000))
    (segment,) = info.segments
    assert (info.eax, info.ebx, segment.address) == (0x2BADB002, 0xA000, 0xA000)

    def word(address: int) -> int:
        return int(struct.unpack_from("<I", segment.data, address - 0xA000)[0])

    def string(address: int) -> str:
        return segment.data[address - 0xA000 :].split(b"\0")[0].decode()

    assert word(0xA000) == 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9
    assert (word(0xA004), word(0xA008)) == (639, (ram_size - 0x100000) >> 10)
    assert (string(word(0xA010)), string(word(0xA040))) == (line, "loader")
    entries, at = [], word(0xA030)
    while at < word(0xA030) + word(0xA02C):
        entries.append(struct.unpack_from("<QQI", segment.data, at + 4 - 0xA000))
        at += word(at) + 4
    assert entries == [(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0xF0000, 0x10000, 2), (0x100000, ram_size - 0x100000, 1)]


@pytest.mark.parametrize("arguments", [(0x9000, ""), (1 << 20, "a" * 5000), (1 << 20, "a\0b")])
def test_information_that_cant_be_built(arguments: tuple[int, str]) -> None:
    with pytest.raises(ValueError):
        build_info(*arguments)
