"""The linear addresses and selectors that both processors have, with the same rights.

All pages but ``HIGH`` lie below 2 GiB, so that 32-bit code reaches them too. Every name is also a constant in the
assembly text of the cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

PAGE = 0x1000


class Rights(Flag):
    """What user code may do with a page; none of them: the page isn't present."""

    NONE = 0
    READ = auto()
    WRITE = auto()
    EXECUTE = auto()


RO = Rights.READ
RW = Rights.READ | Rights.WRITE
RX = Rights.READ | Rights.EXECUTE
RWX = RW | Rights.EXECUTE

ADDRESSES = {
    "CODE": 0x2000_0000,  # a page of code; nothing behind it
    "CODE_THEN_DATA": 0x2001_0000,  # a page of code; behind it one that may be read and written, but not executed
    "CODE_TWO": 0x2002_0000,  # two pages of code
    "DATA": 0x2010_0000,  # read and write; nothing behind it
    "DATA_THEN_RO": 0x2011_0000,  # read and write; behind it a page to be read only
    "RO": 0x2012_0000,  # read only; behind it read and write
    "ABSENT": 0x2013_0000,  # not present; behind it read and write
    "RO_THEN_ABSENT": 0x2014_0000,
    "NO_RIGHTS": 0x2015_0000,  # mapped by mmap, with PROT_NONE: to the processor it isn't present
    "TWO": 0x2016_0000,  # two pages, read and write
    "WRITABLE_CODE": 0x2017_0000,  # all rights
    "STACK": 0x2020_0000,  # read and write; nothing before and behind it
    "HIGH": 0x6123_4567_0000,  # read and write, far above 4 GiB; nothing behind it
}
CODE = ADDRESSES["CODE"]
DATA = ADDRESSES["DATA"]
STACK = ADDRESSES["STACK"]
STACK_TOP = STACK + 0x800

PAGES: dict[int, Rights] = {
    ADDRESSES["CODE"]: RX,
    ADDRESSES["CODE_THEN_DATA"]: RX,
    ADDRESSES["CODE_THEN_DATA"] + PAGE: RW,
    ADDRESSES["CODE_TWO"]: RX,
    ADDRESSES["CODE_TWO"] + PAGE: RX,
    ADDRESSES["DATA"]: RW,
    ADDRESSES["DATA_THEN_RO"]: RW,
    ADDRESSES["DATA_THEN_RO"] + PAGE: RO,
    ADDRESSES["RO"]: RO,
    ADDRESSES["RO"] + PAGE: RW,
    ADDRESSES["ABSENT"] + PAGE: RW,
    ADDRESSES["RO_THEN_ABSENT"]: RO,
    ADDRESSES["NO_RIGHTS"]: Rights.NONE,
    ADDRESSES["TWO"]: RW,
    ADDRESSES["TWO"] + PAGE: RW,
    ADDRESSES["WRITABLE_CODE"]: RWX,
    ADDRESSES["STACK"]: RW,
    ADDRESSES["HIGH"]: RW,
}
CODE_PAGES = tuple(address for address, rights in PAGES.items() if Rights.EXECUTE in rights)
WRITABLE_PAGES = tuple(address for address, rights in PAGES.items() if Rights.WRITE in rights)

# Linux' GDT (arch/x86/include/asm/segment.h), as far as user code may tell: descriptors of ring 3, in a table of
# 16 entries; the others are of ring 0, empty, or the halves of system segments.
KERNEL_CODE, KERNEL_DATA, USER_CODE32, USER_DATA, USER_CODE64, TSS, LDT = 0x10, 0x18, 0x23, 0x2B, 0x33, 0x40, 0x50
CPU_NUMBER = 0x7B
GDT_LIMIT = 0x7F


@dataclass(frozen=True)
class LdtEntry:
    """An entry of the local table in the terms of modify_ldt(2); privilege level 3, accessed."""

    contents: int
    """0: data, 1: expand-down data, 2: code, 3: conforming code."""
    base: int = 0
    limit: int = 0xFFFFF
    pages: bool = True
    """Whether the limit counts pages."""
    wide: bool = True
    """32-bit."""
    restricted: bool = False
    """Data that is read-only, code that is execute-only."""
    present: bool = True


EXPAND_DOWN, CODE_KIND, CONFORMING = 1, 2, 3
LDT_ENTRIES = {
    "ABSENT_DATA": LdtEntry(0, present=False),
    "ABSENT_CODE": LdtEntry(CODE_KIND, present=False),
    "READ_ONLY": LdtEntry(0, restricted=True),
    "EXECUTE_ONLY": LdtEntry(CODE_KIND, restricted=True),
    "SMALL": LdtEntry(0, DATA, 0x7FF, pages=False),
    "DOWN": LdtEntry(EXPAND_DOWN, DATA, 0x7FF, pages=False),
    "SMALL_CODE": LdtEntry(CODE_KIND, CODE, 0x7F, pages=False),
    "STACK16": LdtEntry(0, STACK, 0xFFF, pages=False, wide=False),
    "READABLE_CODE": LdtEntry(CODE_KIND),
    "ABSENT_CONFORMING": LdtEntry(CONFORMING, present=False),
}
SELECTORS = {name: index << 3 | 7 for index, name in enumerate(LDT_ENTRIES)}
SELECTORS["BEYOND_LDT"] = len(LDT_ENTRIES) << 3 | 7
CONSTANTS = ADDRESSES | SELECTORS
