"""The pool, and scattered guest memory with its holes and devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.addresses import HPA, PAGE_SIZE
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_ram import GuestRam
from hvproto.hypervisor.pool import Pool, PoolExhausted
from tests.hypervisor.mirror_model import shuffled_frames

DEVICE = 0xFEE0_0000
WINDOW = HPA(0x1_0000_0000)


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


def test_a_pool_asks_for_what_can_be_missed() -> None:
    pool = Pool(memoryview(bytearray(0x4000)), [HPA(0x1000), HPA(0x2000)])
    kept = [pool.allocate()]
    spare = [pool.allocate()]

    def reclaim() -> bool:
        if spare:
            pool.release(spare.pop())
        return pool.free > 0

    pool.reclaim = reclaim
    assert pool.allocate() != kept[0]
    with pytest.raises(PoolExhausted):
        pool.allocate()


def _with_everything() -> tuple[bytearray, GuestMemory]:
    ram = bytearray(0x10000)
    memory = GuestMemory(memoryview(ram), [HPA(0x3000), None, HPA(0x1000), None])
    memory.add_memory(0x8_0000_0000, HPA(0x5000))
    memory.add_memory(0x8_0000_1000, HPA(0x4000))
    memory.add_device(DEVICE, WINDOW)
    memory.add_device(0x3000, HPA(WINDOW + PAGE_SIZE))
    return ram, memory


def test_holes_devices_and_memory_far_up() -> None:
    ram, memory = _with_everything()
    assert memory.size == 0x4000 and not memory.is_identity
    assert memory.to_host(0x1000) is None and memory.read(0x1000, 1) is None and not memory.write(0x1FFF, b"x")
    assert not memory.write(0xFFF, b"four"), "all of it or nothing"
    assert not any(ram)
    assert memory.write(0x8_0000_0FFE, b"abcd") and memory.read(0x8_0000_0FFE, 4) == b"abcd"
    assert ram[0x5FFE:0x6000] == b"ab" and ram[0x4000:0x4002] == b"cd"
    for device, window in ((DEVICE, WINDOW), (0x3000, WINDOW + PAGE_SIZE)):
        assert memory.to_host(device | 0x20) == window | 0x20 and memory.to_guest(HPA(window | 1)) == device | 1
        assert memory.read(device, 4) is None and memory.read_entry(device, 8) is None
        assert not memory.write(device, b"x") and not memory.is_ram(device)
    assert memory.runs(1 << 20) == [(0, 1), (2, 4), (DEVICE >> 12, (DEVICE >> 12) + 1)]
    assert list(memory.chunks(0, 1 << 40)) == [0, DEVICE >> 12, 0x8_0000_0000 >> 12]


@pytest.mark.parametrize(
    ("page", "hpa", "device"),
    [
        pytest.param(DEVICE, 0x2000, True, id="a window in RAM"),
        pytest.param(0x1000, 0x20000, False, id="memory beyond RAM"),
        pytest.param(0, WINDOW + 0x5000, True, id="over memory"),
        pytest.param(0x8_0000_1000, 0x2000, False, id="memory over memory"),
        pytest.param(0x1234, WINDOW + 0x5000, True, id="no page"),
        pytest.param(1 << 52, WINDOW + 0x5000, True, id="beyond 2^52"),
    ],
)
def test_what_cannot_be_added_is_refused(page: int, hpa: int, device: bool) -> None:
    _, memory = _with_everything()
    with pytest.raises(ValueError):
        (memory.add_device if device else memory.add_memory)(page, HPA(hpa))


def test_guest_ram_reads_and_writes_like_a_buffer_and_is_heard() -> None:
    _, memory = _with_everything()
    heard: list[tuple[int, int]] = []
    memory.on_write = lambda gpa, size: heard.append((gpa, size))
    ram = GuestRam(memory)
    assert len(ram) == memory.size
    ram[0x10:0x14] = b"abcd"
    ram[0x11] |= 0x80
    ram[0x8_0000_0FFF:0x8_0000_1001] = bytearray(b"xy")
    assert ram[0x10:0x14] == b"a\xe2cd" and ram[0x8_0000_1000] == ord("y") and ram[0x20:0x20] == b""
    assert heard == [(0x10, 4), (0x11, 1), (0x8_0000_0FFF, 1), (0x8_0000_1000, 1)]
    for nowhere in (0x1000, slice(0xFFF, 0x1001), slice(0, None), DEVICE, -1, slice(-4, 0), 1 << 52):
        with pytest.raises(IndexError):
            ram[nowhere]
    with pytest.raises(IndexError):
        ram[0xFFE:0x1002] = b"four"
    with pytest.raises(ValueError):
        ram[0:4] = b"five!"
    with pytest.raises(ValueError):
        ram[0:4:2]
    assert len(heard) == 4 and ram[0xFFE:0x1000] == b"\0\0"
