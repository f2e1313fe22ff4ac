"""Descriptors and gates of the cases, as (low, high) doublewords (SDM vol. 3, 3.4.5 and 6.11)."""

from __future__ import annotations

Words = tuple[int, ...]
"""Two doublewords, or the four of long mode's system descriptors and gates."""

DATA_RO, DATA_RW, DATA_RO_DOWN, DATA_RW_DOWN = 0x10, 0x12, 0x14, 0x16
CODE_X, CODE_XR, CONFORMING_X, CONFORMING_XR = 0x18, 0x1A, 0x1C, 0x1E
ACCESSED = 1
TSS286, LDT_TYPE, TSS286_BUSY, CALL286, TASK_GATE, INT286, TRAP286 = 1, 2, 3, 4, 5, 6, 7
TSS386, TSS386_BUSY, CALL386, INT386, TRAP386 = 9, 11, 12, 14, 15


def segment(
    kind: int, *, base: int = 0, limit: int = 0xFFFFFFFF, dpl: int = 0, present: bool = True, flags: int = 4
) -> Words:
    """A segment descriptor; ``kind`` holds S and the type, ``limit`` is in bytes, ``flags`` are L (2) and D/B (4)."""
    if limit > 0xFFFFF:
        limit, flags = limit >> 12, flags | 8
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | kind << 8 | dpl << 13 | present << 15 | limit & 0xF0000 | flags << 20
    return low, high | base & 0xFF000000


def gate(kind: int, selector: int, offset: int, *, dpl: int = 0, present: bool = True, count: int = 0) -> Words:
    """A call, interrupt, trap or task gate; ``count`` is that of the parameters, or the IST."""
    return offset & 0xFFFF | selector << 16, offset & 0xFFFF0000 | present << 15 | dpl << 13 | kind << 8 | count


def long_system(kind: int, base: int, limit: int, *, dpl: int = 0, present: bool = True) -> Words:
    """A TSS or LDT descriptor of long mode (SDM vol. 3, 8.2.3)."""
    return *segment(kind, base=base & 0xFFFFFFFF, limit=limit, dpl=dpl, present=present, flags=0), base >> 32, 0


def long_gate(kind: int, selector: int, offset: int, *, dpl: int = 0, present: bool = True, ist: int = 0) -> Words:
    """A gate of long mode (SDM vol. 3, 6.14.1 and 5.8.3.1)."""
    low = gate(kind, selector, offset & 0xFFFFFFFF, dpl=dpl, present=present, count=ist)
    return *low, offset >> 32 & 0xFFFFFFFF, 0
