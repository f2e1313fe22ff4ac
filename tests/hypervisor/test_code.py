"""Superset decoding: wherever a sensitive instruction could start, a trap is planted; for code of every kind."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import capstone
import pytest

from hvproto.addresses import PAGE_SIZE
from hvproto.hypervisor.sensitive import LONGEST_INSTRUCTION, CodeKind, Decoder, is_sensitive, sensitive_offsets

DECODER = Decoder()
CODE16, CODE32, CODE64 = (CodeKind(mode) for mode in (capstone.CS_MODE_16, capstone.CS_MODE_32, capstone.CS_MODE_64))
REAL, V86_32 = CodeKind(capstone.CS_MODE_16, by_paragraphs=True), CodeKind(capstone.CS_MODE_32, by_paragraphs=True)
"""By paragraphs: 16-bit code, and the 32-bit code that runs on in real mode until CS is loaded anew."""
KERNEL32, KERNEL64 = (CodeKind(kind.mode, guards_loads=True) for kind in (CODE32, CODE64))
KINDS = (CODE16, CODE32, CODE64, REAL, V86_32, KERNEL32, KERNEL64)
KIND_NAMES = ("16", "32", "64", "real", "real, 32", "kernel, 32", "kernel, 64")

# With ModR/M bytes and immediates. PUSHF POPF IRET RETF, CALL and JMP FAR through memory, SLDT STR VERR VERW, SGDT SIDT
# SMSW, LAR LSL, INS, CPUID, and what loads SS: MOV, LSS.
ALL_KINDS = ["9c", "9d", "cf", "ca1000", "cb", "ff18", "ff1d44332211", "ff28", "0f0000", "0f00c8", "0f0020", "0f00e9",
             "0f0103", "0f010b", "0f01e0", "0f0120", "0f02c1", "0f0301", "6c", "6d", "0fa2", "8ed0", "8e10", "0fb203"]  # fmt: skip
NOT_IN_64_BITS = ["9a112233441b00", "ea112233440800", "17"]
"""CALL FAR, JMP FAR, POP SS."""
LOADS = ["8ed8", "8e00", "8ee9", "07", "1f", "c403", "c503", "0fa1", "0fa9", "0fb403", "0fb503"]
"""MOV, POP, LES, LDS, LFS, LGS."""
PORTS = ["e480", "e780", "ec", "ef", "6e", "6f"]
HARMLESS = ["90", "89c8", "ff10", "ff20", "ffd0", "8cd8", "8cc0", "8cc8", "8cd3", "0f0b", "c3", "e811223344",
            "0f01d0", "0f05", "cc", "cd80", "f4", "fa", "fb", "0f0110", "0f2000", "0f30"]  # fmt: skip
"""Among them what traps by itself, and what tells nothing: a guest's selectors are its own."""
HARMLESS_OUTSIDE_64_BITS = ["0e", "16", "1e", "06"]
PREFIXES = [bytes([byte]) for byte in b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65"]
REX = [bytes([byte]) for byte in b"\x40\x41\x44\x48\x4f"]


def offsets(page: bytes, kind: CodeKind = CODE32, *, ports: bool = False) -> list[int]:
    return sensitive_offsets(page.ljust(PAGE_SIZE, b"\x90"), DECODER, kind, ports=ports)


def sensitive_in(kind: CodeKind) -> list[str]:
    """Of the instructions above, those that are sensitive in this kind of code."""
    wide = kind.mode == CODE64.mode
    loads = LOADS if kind.watches_loads else []
    others = [] if wide else NOT_IN_64_BITS
    return ALL_KINDS + others + [load for load in loads if not wide or load not in ("07", "1f", "c403", "c503")]


def prefixes_of(kind: CodeKind) -> Sequence[bytes]:
    return PREFIXES + REX if kind.mode == CODE64.mode else PREFIXES


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_every_sensitive_instruction_with_every_two_prefixes(kind: CodeKind) -> None:
    for text in sensitive_in(kind):
        for prefixes in itertools.product([b"", *prefixes_of(kind)], repeat=2):
            code = b"".join(prefixes) + bytes.fromhex(text)
            assert 100 in offsets(b"\x90" * 100 + code, kind), code.hex()


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_ports_are_sensitive_for_an_engine_that_does_not_check_them(kind: CodeKind) -> None:
    for text in PORTS:
        for prefix in (b"", *prefixes_of(kind)):
            code = prefix + bytes.fromhex(text)
            assert 100 in offsets(b"\x90" * 100 + code, kind, ports=True), code.hex()
            assert not offsets(b"\x90" * 100 + code, kind), code.hex()


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_nothing_is_planted_where_nothing_is_sensitive(kind: CodeKind) -> None:
    others = [] if kind.mode == CODE64.mode else HARMLESS_OUTSIDE_64_BITS
    for text in HARMLESS + others + ([] if kind.watches_loads else ["8ed8", "8ee9", "0fa1", "0fb403", "0f1f00"]):
        assert not offsets(bytes.fromhex(text) + b"\x90" * 8, kind), text


def test_the_same_bytes_in_code_of_another_size() -> None:
    """What a REX prefix is in 64 bits is an INC or DEC elsewhere; VEX is LES and LDS; far calls aren't there at all."""
    assert offsets(b"\x48\xcf", CODE64) == [0, 1]  # IRETQ, IRET
    assert offsets(b"\x48\xcf", CODE32) == offsets(b"\x48\xcf", CODE16) == [1]
    assert offsets(b"\x41\x8e\xd0", CODE64) == [0, 1]
    assert offsets(b"\x9a" + bytes(6), CODE64) == offsets(b"\x17", CODE64) == offsets(b"\xea" + bytes(6), CODE64) == []
    assert offsets(b"\xc5\x03", REAL) == [0] and offsets(b"\xc5\x03", CODE16) == []
    assert offsets(b"\xc5\xf8\x77", CODE64) == offsets(b"\xc5\xf8\x77", CODE32) == []  # VZEROUPPER
    # MOV AX, 0x0f00 / SGDT-like bytes after it: where the immediate ends depends on the size.
    assert offsets(b"\xb8\x00\x00\x0f\x01\x00", CODE16) == offsets(b"\xb8\x00\x00\x0f\x01\x00", CODE32) == [3]


@pytest.mark.parametrize("load", ["17", "0fb203", "8ed0"])
def test_loads_of_ss_everywhere_and_of_others_by_paragraphs_alone(load: str) -> None:
    kinds = [kind for kind in KINDS if kind.mode != CODE64.mode or load != "17"]
    assert [offsets(bytes.fromhex(load), kind) for kind in kinds] == [[0]] * len(kinds)
    for text in LOADS:
        found = [bool(offsets(bytes.fromhex(text), kind)) for kind in (CODE16, CODE32, REAL, V86_32)]
        assert found == [False, False, True, True], text


def test_instructions_hidden_in_others() -> None:
    assert offsets(bytes.fromhex("b89c9dcfcb")) == [1, 2, 3, 4]  # mov eax, imm32
    assert offsets(bytes.fromhex("b80f010b00")) == [1]
    assert offsets(bytes.fromhex("48b89c9dcf0fa2489c90"), CODE64) == [2, 3, 4, 5, 7, 8]  # mov rax, imm64


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_across_the_end_of_a_page(kind: CodeKind) -> None:
    """Planted by what stands in this page alone: the next page may be another one when the instruction is executed."""
    some = [b"", b"\x66", b"\x2e\x66\x67", *([b"\x48", b"\x66\x4f"] if kind.mode == CODE64.mode else [])]
    for text, prefixes in itertools.product(sensitive_in(kind), some):
        code = prefixes + bytes.fromhex(text)
        for inside in range(1, len(code) + 1):
            page = (b"\x90" * PAGE_SIZE + code[:inside])[-PAGE_SIZE:]
            assert PAGE_SIZE - inside in offsets(page, kind), (text, prefixes, inside)


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_a_part_of_a_page_is_looked_at_as_in_the_whole(kind: CodeKind) -> None:
    rng = random.Random(5)
    page = bytes(
        rng.choice(b"\x66\x0f\x01\x00\x9c\xff\x18\x8c\xc8\x8e\xd0\x48\x1f\x2e\x90\xf0") for _ in range(PAGE_SIZE)
    )
    whole = offsets(page, kind)
    for _ in range(40):
        first, end = sorted(rng.sample(range(PAGE_SIZE + 1), 2))
        part = sensitive_offsets(page, DECODER, kind, ports=False, first=first, end=end)
        assert part == [offset for offset in whole if first <= offset < end]


@pytest.mark.parametrize("ports", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_random_pages_against_decoding_at_each_offset(kind: CodeKind, ports: bool) -> None:
    for seed in range(4):
        page = random.Random(seed).randbytes(PAGE_SIZE)
        found = set(offsets(page, kind, ports=ports))
        for offset in range(PAGE_SIZE - LONGEST_INSTRUCTION):
            instruction = DECODER.decode(page[offset : offset + LONGEST_INSTRUCTION], kind.mode)
            sensitive = instruction is not None and is_sensitive(instruction, kind, ports=ports)
            assert (offset in found) is sensitive, page[offset : offset + LONGEST_INSTRUCTION].hex()
