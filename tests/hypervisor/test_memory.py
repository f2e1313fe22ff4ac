"""The pool, scattered guest memory, the region's tables, and finding a hole for it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvproto.addresses import GVA, HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.plan import Plan, Provider
from hvproto.hypervisor.pool import Pool, PoolExhausted
from hvproto.hypervisor.region import CODE_SELECTOR, PAGES, STUB_SIZE, TSS_SELECTOR, Region
from hvproto.hypervisor.relocation import NoHole, find_hole
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE
from hvproto.processor.paging import PagingMode
from hvproto.processor.segments import decode_descriptor
from hvproto.processor.settings import CR0_PE, CR0_PG, CR4_PAE, CR4_PSE
from tests.hypervisor.stage import shuffled_frames


def test_the_pool_hands_out_zeroed_frames_once() -> None:
    ram = bytearray(b"\xff" * 0x20000)
    frames = [HPA(n * PAGE_SIZE) for n in (9, 3, 7, 5)]
    pool = Pool(memoryview(ram), frames)
    got = [pool.allocate() for _ in range(4)]
    assert got == sorted(frames)
    assert all(ram[f : f + PAGE_SIZE] == bytes(PAGE_SIZE) for f in frames)
    assert ram.count(0) == 4 * PAGE_SIZE
    with pytest.raises(PoolExhausted, match="4 pages"):
        pool.allocate()
    ram[got[1]] = 1
    pool.release(got[1])
    assert pool.free == 1 and pool.allocate() == got[1] and ram[got[1]] == 0


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 0x9000), st.binary(max_size=9000)), max_size=8))
def test_scattered_memory_reads_what_was_written(seed: int, writes: list[tuple[int, bytes]]) -> None:
    ram = bytearray(0x20000)
    frames = shuffled_frames(8, seed, len(ram))
    memory = GuestMemory(memoryview(ram), frames)
    model = bytearray(memory.size)
    heard: list[tuple[int, int]] = []
    memory.on_write = lambda gpa, size: heard.append((gpa, size))
    for at, data in writes:
        fits = at + len(data) <= memory.size
        heard.clear()
        if not data:
            continue
        assert memory.write(at, data) is fits
        if fits:
            model[at : at + len(data)] = data
            assert sum(size for _, size in heard) == len(data)
            assert all((gpa & 0xFFF) + size <= PAGE_SIZE for gpa, size in heard)
        else:
            assert not heard
    assert memory.read(0, memory.size) == model
    assert memory.read(memory.size - 1, 2) is None and memory.read_entry(memory.size, 4) is None
    others = set(range(0, len(ram), PAGE_SIZE)) - set(frames)
    assert all(ram[at : at + PAGE_SIZE] == bytes(PAGE_SIZE) for at in others)
    for number, frame in enumerate(frames):
        assert memory.to_host(number << 12 | 5) == frame | 5 and memory.to_guest(HPA(frame | 7)) == number << 12 | 7
    assert all(memory.to_guest(HPA(at)) is None for at in others) and memory.to_host(-1) is None
    assert not memory.is_identity and GuestMemory(memoryview(ram), [HPA(0), HPA(0x1000)]).is_identity


# -- the region --------------------------------------------------------------------------------


def _region() -> tuple[bytearray, Region]:
    ram = bytearray(0x20000)
    return ram, Region(memoryview(ram), shuffled_frames(PAGES, 3, len(ram)))


@given(st.integers(1, 0xFFFF_F - PAGES))
def test_rebase_makes_every_linear_address_fit(page: int) -> None:
    ram, region = _region()
    stubs = bytes(ram[region.frames[0] :][:PAGE_SIZE])
    base = page << 12
    region.rebase(GVA(base))
    assert bytes(ram[region.frames[0] :][:PAGE_SIZE]) == stubs, "the stubs hold no address"
    pages = [bytes(ram[frame : frame + PAGE_SIZE]) for frame in region.frames]
    assert region.idtr.base == base + PAGE_SIZE and region.idtr.limit == 0x7FF
    for vector in range(256):
        low, selector, kind, high = struct.unpack_from("<HHHH", pages[1], vector * 8)
        target = high << 16 | low
        assert selector == CODE_SELECTOR and kind & 0x9F00 == 0x8E00
        assert target == base + vector * STUB_SIZE == region.stub(vector)
        assert (kind >> 13 & 3 == 3) is (vector >= 32 or vector in (3, 4)), "INT n of an exception stays closed"
        code = pages[0][target - base :][:STUB_SIZE]
        error = b"" if vector in VECTORS_WITH_ERROR_CODE else b"\x6a\x00"
        assert code.startswith(error + b"\x68" + struct.pack("<I", vector) + b"\xf4\x83\xc4\x08\xcf")
        assert region.after_halt(vector) == target + len(error) + 6
    esp0, ss0 = struct.unpack_from("<II", pages[1], 0x804)
    assert esp0 == base + 2 * PAGE_SIZE == region.stack_top and ss0 == CODE_SELECTOR + 8
    for kernel, content in ((True, pages[2]), (False, pages[3])):
        assert region.gdtr(kernel=kernel).base == base + (2 if kernel else 3) * PAGE_SIZE
        tss = decode_descriptor(TSS_SELECTOR, struct.unpack_from("<Q", content, TSS_SELECTOR)[0])
        assert tss.base == base + PAGE_SIZE + 0x800 == region.tr.base and tss.limit == 0x67
    assert region.contains(base) and region.contains(base + 5 * PAGE_SIZE - 1)
    assert not region.contains(base - 1) and not region.contains(base + 5 * PAGE_SIZE)


def test_routed_vectors_survive_a_move() -> None:
    ram, region = _region()
    theirs = bytes(range(256)) * 8
    region.route(Plan.parse("mirrored,vector.14=host,vector.33=guest"), {Provider.HOST: theirs, Provider.GUEST: b""})
    region.rebase(GVA(0x5000_0000))
    idt = bytes(ram[region.frames[1] :][:0x800])
    assert idt[14 * 8 : 15 * 8] == theirs[14 * 8 : 15 * 8]
    assert idt[33 * 8 : 34 * 8] == bytes(8), "beyond the end of its owner's table: not present"
    assert struct.unpack_from("<H", idt, 13 * 8)[0] == region.stub(13) & 0xFFFF


# -- holes -------------------------------------------------------------------------------------

_ranges = st.lists(
    st.tuples(st.integers(0, 0xFFFFF), st.sampled_from((1, 2, 3, 5, 9, 1024, 4096, 200_000))), max_size=12
)


def _tables(ranges: list[tuple[int, int]], pae: bool) -> tuple[GuestMemory, PagingMode, bytearray]:
    """Tables that map whole runs of pages (to frame 0); and a bytearray with 1 for each mapped page."""
    size, entry = (8, 512) if pae else (4, 1024)
    mapped = bytearray(1 << 20)
    for first, count in ranges:
        mapped[first : first + count] = b"\1" * len(mapped[first : first + count])
    ram = bytearray(6 << 20)
    tables = 0x10000

    def put(at: int, value: int) -> None:
        ram[at : at + size] = value.to_bytes(size, "little")

    full = tables
    tables += PAGE_SIZE
    for index in range(entry):
        put(full + index * size, 3)
    for slot in range((1 << 20) // entry):
        pages = mapped[slot * entry : (slot + 1) * entry]
        if not any(pages):
            continue
        if all(pages) and slot % 3 == 0:
            table = 0x83  # a large page
        elif all(pages):
            table = full | 3
        else:
            table = tables | 3
            for index, there in enumerate(pages):
                put(tables + index * size, 3 if there else 2)
            tables += PAGE_SIZE
        root = 0x1000 if not pae else 0x2000 + (slot >> 9) * PAGE_SIZE
        put(root + (slot & entry - 1) * size, table)
    if pae:
        for index in range(4):
            put(0x1000 + index * 8, 0x2000 + index * PAGE_SIZE | 1)
    memory = GuestMemory(memoryview(ram), [HPA(n * PAGE_SIZE) for n in range(len(ram) // PAGE_SIZE)])
    return memory, PagingMode(CR0_PE | CR0_PG, 0x1000, CR4_PAE if pae else CR4_PSE, 0), mapped


@settings(max_examples=60, deadline=None)
@given(_ranges, st.integers(1, 40), st.booleans())
def test_the_hole_is_free_and_the_highest(ranges: list[tuple[int, int]], pages: int, pae: bool) -> None:
    memory, mode, mapped = _tables(ranges, pae)
    usable = mapped[: (1 << 20) - 1]  # the last page stays free, and so does page 0
    usable[0] = 1
    expected = usable.rfind(bytes(pages))
    if expected >= 0:
        assert find_hole(mode, memory, pages) == expected << 12
    else:
        with pytest.raises(NoHole):
            find_hole(mode, memory, pages)


@pytest.mark.parametrize("free", [0, 1, 4])
def test_no_hole_says_how_much_was_sought_and_found(free: int) -> None:
    ranges = [(0, 0x80000), (0x80000 + free, 0x80000 - free)]
    memory, mode, _ = _tables(ranges, pae=False)
    with pytest.raises(NoHole) as caught:
        find_hole(mode, memory, PAGES)
    assert (caught.value.pages_sought, caught.value.pages_found) == (PAGES, free)


def test_a_hole_without_paging() -> None:
    memory = GuestMemory(memoryview(bytearray(0x8000)), [HPA(n * PAGE_SIZE) for n in range(8)])
    assert find_hole(PagingMode(0, 0, 0, 0), memory, 5) == 0xFFFF_F000 - 5 * PAGE_SIZE
