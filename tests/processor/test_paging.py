"""The walker as a pure function, in all formats; what the engine says of them is in test_paging_hardware."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.processor.paging import (
    ERROR_I,
    ERROR_P,
    ERROR_RSVD,
    ERROR_U,
    ERROR_W,
    FOUR_LEVEL,
    NX,
    PAE,
    PS,
    TWO_LEVEL,
    A,
    Access,
    D,
    Format,
    P,
    PagingMode,
    U,
    W,
    accessed_bits,
    fault_code,
    format_of,
    walk,
)
from hvproto.processor.settings import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_LMA, EFER_LME, EFER_NXE

FORMATS = {
    "2-level": (TWO_LEVEL, CR4_PSE, EFER_NXE),
    "pae": (PAE, CR4_PAE, EFER_NXE),
    "4-level": (FOUR_LEVEL, CR4_PAE, EFER_NXE | EFER_LMA | EFER_LME),
}
ALL = P | W | U
TABLE = 0x10_0000


class Memory:
    """A sparse physical memory of entries."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}

    def __call__(self, address: int, size: int) -> int | None:
        assert address % size == 0
        return self.entries.get(address, 0)


def _mode(name: str, cr0: int = 0, root: int = TABLE) -> tuple[Format, PagingMode]:
    fmt, cr4, efer = FORMATS[name]
    return fmt, PagingMode(CR0_PE | CR0_PG | cr0, root, cr4, efer)


def _map(memory: Memory, fmt: Format, linear: int, frame: int, flags: list[int], large_at: int | None = None) -> None:
    """Tables one after the other from TABLE on; ``flags`` are each level's, the root's first."""
    table = TABLE
    last = fmt.depth - 1 if large_at is None else large_at
    for level in range(last + 1):
        address = table + fmt.index(level, linear) * fmt.entry_size
        table += 0x1000
        leaf = level == last
        memory.entries[address] = (
            (frame if leaf else table) | flags[level] | (PS if leaf and large_at is not None else 0)
        )


def _linear(fmt: Format, value: int) -> int:
    return value & (0xFFFF_FFFF if fmt is not FOUR_LEVEL else 0xFFFF_FFFF_FFFF)


@pytest.mark.parametrize("name", FORMATS)
@given(value=st.integers(0, (1 << 48) - 1), frame=st.integers(0, 0xF_FFFF))
def test_a_mapping_is_found(name: str, value: int, frame: int) -> None:
    fmt, mode = _mode(name)
    linear = _linear(fmt, value)
    memory = Memory()
    _map(memory, fmt, linear, frame << 12, [ALL if fmt is not PAE or i else P for i in range(fmt.depth)])
    found = walk(mode, memory, linear)
    assert found.physical == frame << 12 | linear & 0xFFF
    assert (found.writable, found.user, found.no_execute, found.page_size) == (True, True, False, 4096)
    assert [step.level for step in found.steps] == list(range(fmt.depth))
    assert walk(mode, memory, linear ^ 0x1000).physical is None
    for access in Access:
        for user in (True, False):
            assert fault_code(mode, found, access, user=user) is None


@pytest.mark.parametrize(
    ("name", "level", "size"),
    [("2-level", 0, 1 << 22), ("pae", 1, 1 << 21), ("4-level", 2, 1 << 21), ("4-level", 1, 1 << 30)],
)
@given(value=st.integers(0, (1 << 48) - 1), number=st.integers(0, 3))
def test_a_large_page_is_found(name: str, level: int, size: int, value: int, number: int) -> None:
    fmt, mode = _mode(name)
    linear = _linear(fmt, value)
    memory = Memory()
    flags = [ALL if fmt is not PAE or i else P for i in range(fmt.depth)]
    _map(memory, fmt, linear, number * size, flags, large_at=level)
    found = walk(mode, memory, linear)
    assert (found.physical, found.page_size) == (number * size + linear % size, size)
    assert len(found.steps) == level + 1


def test_pse_36_reaches_beyond_4_gib() -> None:
    memory = Memory()
    memory.entries[TABLE] = 0x0040_0000 | 0x12 << 13 | ALL | PS
    _, mode = _mode("2-level")
    assert walk(mode, memory, 0x1234).physical == 0x12_0040_1234


def test_without_pse_the_bit_means_nothing() -> None:
    memory = Memory()
    memory.entries[TABLE] = TABLE + 0x1000 | ALL | PS
    memory.entries[TABLE + 0x1000] = 0x5000 | ALL
    mode = PagingMode(CR0_PE | CR0_PG, TABLE, 0, 0)
    assert walk(mode, memory, 0x123).physical == 0x5123


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_permissions_combine_over_all_levels(name: str, data: st.DataObject) -> None:
    fmt, mode = _mode(name, data.draw(st.sampled_from((0, CR0_WP))))
    bits = [W, U] + ([NX] if fmt.entry_size == 8 else [])
    flags = [P | sum(data.draw(st.sampled_from((0, bit))) for bit in bits) for _ in range(fmt.depth)]
    if fmt is PAE:
        flags[0] = P
    memory = Memory()
    _map(memory, fmt, 0x40_5678, 0x9000, flags)
    found = walk(mode, memory, 0x40_5678)
    counted = flags[1:] if fmt is PAE else flags
    writable, user = all(f & W for f in counted), all(f & U for f in counted)
    no_execute = any(f & NX for f in counted)
    assert (found.writable, found.user, found.no_execute) == (writable, user, no_execute)
    nx_counts = fmt.entry_size == 8
    for who in (True, False):
        base = ERROR_P | (ERROR_U if who else 0)
        allowed = user or not who
        write = allowed and (writable or (not who and not mode.write_protect))
        assert fault_code(mode, found, Access.READ, user=who) == (None if allowed else base)
        assert fault_code(mode, found, Access.WRITE, user=who) == (None if write else base | ERROR_W)
        fetch = allowed and not no_execute
        code = base | (ERROR_I if nx_counts else 0)
        assert fault_code(mode, found, Access.FETCH, user=who) == (None if fetch else code)


@pytest.mark.parametrize("name", FORMATS)
def test_an_absent_entry_ends_the_walk(name: str) -> None:
    fmt, mode = _mode(name)
    for missing in range(fmt.depth):
        memory = Memory()
        flags = [ALL if fmt is not PAE or i else P for i in range(fmt.depth)]
        flags[missing] &= ~P
        _map(memory, fmt, 0x1234_5000, 0x9000, flags)
        found = walk(mode, memory, 0x1234_5000)
        assert (found.present, found.leaf.level, len(found.steps)) == (False, missing, missing + 1)
        assert fault_code(mode, found, Access.READ, user=True) == ERROR_U
        assert fault_code(mode, found, Access.WRITE, user=False) == ERROR_W


@pytest.mark.parametrize("bit", [40, 45, 51])
@pytest.mark.parametrize("name", ["pae", "4-level"])
def test_a_reserved_bit_faults_whatever_the_access(name: str, bit: int) -> None:
    fmt, mode = _mode(name)
    for level in range(fmt.depth):
        memory = Memory()
        flags = [ALL if fmt is not PAE or i else P for i in range(fmt.depth)]
        flags[level] |= 1 << bit
        _map(memory, fmt, 0x1234_5000, 0x9000, flags)
        found = walk(mode, memory, 0x1234_5000)
        assert found.reserved and not found.present and found.leaf.level == level
        assert fault_code(mode, found, Access.READ, user=False) == ERROR_P | ERROR_RSVD
        assert fault_code(mode, found, Access.WRITE, user=True) == ERROR_P | ERROR_RSVD | ERROR_W | ERROR_U


def test_nx_is_reserved_while_it_is_off() -> None:
    memory = Memory()
    _map(memory, PAE, 0x1000, 0x9000, [P, ALL, ALL | NX])
    for efer, reserved in ((0, True), (EFER_NXE, False)):
        assert walk(PagingMode(CR0_PG | CR0_PE, TABLE, CR4_PAE, efer), memory, 0x1000).reserved is reserved


@pytest.mark.parametrize("name", FORMATS)
def test_accessed_and_dirty(name: str) -> None:
    fmt, mode = _mode(name)
    memory = Memory()
    _map(memory, fmt, 0x7000, 0x9000, [ALL if fmt is not PAE or i else P for i in range(fmt.depth)])
    found = walk(mode, memory, 0x7000)
    marked = [step for step in found.steps if fmt is not PAE or step.level]
    assert accessed_bits(mode, found, Access.READ) == [(step.address, A) for step in marked]
    writes = accessed_bits(mode, found, Access.WRITE)
    assert writes == [(step.address, A | D if step is found.leaf else A) for step in marked]
    for address, bits in writes:
        memory.entries[address] |= bits
    for access in Access:
        assert accessed_bits(mode, walk(mode, memory, 0x7000), access) == []


def test_tables_in_missing_memory_map_nothing() -> None:
    _, mode = _mode("2-level")
    assert not walk(mode, lambda _address, _size: None, 0x1234).present


def test_paging_off() -> None:
    mode = PagingMode(CR0_PE, 0x1000, CR4_PAE, 0)
    found = walk(mode, Memory(), 0x1234_5678)
    assert (found.physical, found.steps) == (0x1234_5678, ())
    assert all(fault_code(mode, found, access, user=True) is None for access in Access)


def test_the_format_follows_the_control_registers() -> None:
    assert format_of(CR0_PE, CR4_PAE, EFER_LMA) is None
    assert format_of(CR0_PG, 0, 0) is TWO_LEVEL
    assert format_of(CR0_PG, CR4_PSE, EFER_NXE) is TWO_LEVEL
    assert format_of(CR0_PG, CR4_PAE, 0) is PAE
    assert format_of(CR0_PG, CR4_PAE, EFER_LMA) is FOUR_LEVEL
