"""Superset decoding: wherever a sensitive instruction could start, a trap is planted; prefixes and page ends included."""

from __future__ import annotations

import itertools
import random

import pytest

from hvproto.addresses import PAGE_SIZE
from hvproto.hypervisor.code import Decoder, is_sensitive, sensitive_offsets

DECODER = Decoder()
# What programs may use too, and what only a kernel uses sensibly; ModR/M bytes and immediates included.
EVERYWHERE = ["9c", "9d", "cf", "9a112233441b00", "ca1000", "cb", "ff18", "ff1d44332211", "0f0000", "0f00c8", "0f0020", "0f00e9",
              "0f0103", "0f010b", "0f01e0", "0f0120", "0f02c1", "0f0301", "6c", "6d"]  # fmt: skip
IN_KERNELS = ["0e", "16", "ea112233440800", "ff28", "8cc8", "8cd3", "8c08", "8c1544332211"]
HARMLESS = [
    "90",
    "89c8",
    "ff10",
    "ff20",
    "ffd0",
    "8cd8",
    "8cc0",
    "0f0b",
    "0fa2",
    "1e",
    "06",
    "c3",
    "e811223344",
    "0f1f00",
    "0f01d0",
]
PORTS = ["e480", "e780", "ec", "ef", "6e", "6f"]
PREFIXES = [bytes([byte]) for byte in b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65"]


def offsets(page: bytes, *, kernel: bool = True, ports: bool = False) -> list[int]:
    return sensitive_offsets(page.ljust(PAGE_SIZE, b"\x90"), DECODER, kernel=kernel, ports=ports)


@pytest.mark.parametrize("text", EVERYWHERE + IN_KERNELS + PORTS)
def test_every_sensitive_instruction_with_every_two_prefixes(text: str) -> None:
    for prefixes in itertools.product([b"", *PREFIXES], repeat=2):
        code = b"".join(prefixes) + bytes.fromhex(text)
        found = offsets(b"\x90" * 100 + code, kernel=True, ports=True)
        assert 100 in found, code.hex()
        assert (100 in offsets(b"\x90" * 100 + code, kernel=False)) is (text in EVERYWHERE), code.hex()


@pytest.mark.parametrize("text", HARMLESS + PORTS)
def test_nothing_is_planted_where_nothing_is_sensitive(text: str) -> None:
    assert not offsets(bytes.fromhex(text) + b"\x90" * 8)


def test_instructions_hidden_in_others() -> None:
    assert offsets(bytes.fromhex("b89c9dcf0e")) == [1, 2, 3, 4]  # mov eax, imm32
    assert offsets(bytes.fromhex("b80f010b00")) == [1]


@pytest.mark.parametrize("text", EVERYWHERE + IN_KERNELS)
def test_across_the_end_of_a_page(text: str) -> None:
    """Planted by what stands in this page alone: the next page may be another one when the instruction is executed."""
    for prefixes in (b"", b"\x66", b"\x2e\x66\x67"):
        code = prefixes + bytes.fromhex(text)
        for inside in range(1, len(code) + 1):
            page = (b"\x90" * PAGE_SIZE + code[:inside])[-PAGE_SIZE:]
            assert PAGE_SIZE - inside in offsets(page), (text, inside)


def test_a_part_of_a_page_is_looked_at_as_in_the_whole() -> None:
    rng = random.Random(5)
    page = bytes(rng.choice(b"\x66\x0f\x01\x00\x9c\xff\x18\x8c\xc8\x2e\x90\xf0") for _ in range(PAGE_SIZE))
    whole = offsets(page)
    for _ in range(40):
        first, end = sorted(rng.sample(range(PAGE_SIZE + 1), 2))
        part = sensitive_offsets(page, DECODER, kernel=True, ports=False, first=first, end=end)
        assert part == [offset for offset in whole if first <= offset < end]


def test_random_pages_against_decoding_at_each_offset() -> None:
    for seed in range(6):
        page = random.Random(seed).randbytes(PAGE_SIZE)
        found = set(offsets(page, ports=True))
        code = page + bytes(15)
        for offset in range(PAGE_SIZE - 15):
            instruction = DECODER.decode(code[offset : offset + 15])
            sensitive = instruction is not None and is_sensitive(instruction, kernel=True, ports=True)
            assert (offset in found) is sensitive
