"""The tables as they are before each case: GDT, LDT, IDT, TSSes, and page tables of each mode."""

from __future__ import annotations

import struct
from enum import Enum

from tools.oracle import layout as at
from tools.oracle.descriptors import (
    ACCESSED,
    CODE_XR,
    CONFORMING_XR,
    DATA_RW,
    INT386,
    LDT_TYPE,
    TSS286,
    TSS386,
    Words,
    gate,
    long_gate,
    long_system,
    segment,
)

_OPEN = (3, 4, at.END, at.GATE)
"""The vectors whose gates are open to ring 3."""
P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
PAGE = 0x1000


class Mode(Enum):
    """What a kernel runs in."""

    LEGACY = "32"  # protected mode, 2-level paging
    PAE = "pae"
    LONG = "64"


def gdt32() -> dict[int, Words]:
    code, data = CODE_XR | ACCESSED, DATA_RW | ACCESSED
    return {
        at.KCODE: segment(code),
        at.KDATA: segment(data),
        at.UCODE: segment(code, dpl=3),
        at.UDATA: segment(data, dpl=3),
        at.TSS_SELECTOR: segment(TSS386, base=at.TSS, limit=at.TSS_LIMIT, flags=0),
        at.TSS_DF_SELECTOR: segment(TSS386, base=at.TSS_DF, limit=0x67, flags=0),
        at.LDT_SELECTOR: segment(LDT_TYPE, base=at.LDT, limit=at.LDT_LIMIT, flags=0),
        at.CODE1: segment(code, dpl=1),
        at.DATA1: segment(data, dpl=1),
        at.CODE2: segment(code, dpl=2),
        at.DATA2: segment(data, dpl=2),
        at.CONFORMING: segment(CONFORMING_XR | ACCESSED),
        at.GATE16_CODE: segment(code, base=at.KERNEL, limit=0xFFFF),
        at.TSS_286_SELECTOR: segment(TSS286, base=at.TSS_286, limit=0x2B, flags=0),
        at.TSS_OTHER_SELECTOR: segment(TSS386, base=at.TSS_OTHER, limit=0x67, flags=0),
    }


LONG_CODE = 2
"""The flags of a 64-bit code segment: L without D."""


def gdt64() -> dict[int, Words]:
    """Long mode's GDT: 64-bit code in place of 32-bit, and both kinds of compatibility code."""
    code, data, wide = CODE_XR | ACCESSED, DATA_RW | ACCESSED, LONG_CODE
    return {
        at.KCODE: segment(code, flags=wide),
        at.KDATA: segment(data),
        at.UCODE: segment(code, dpl=3, flags=wide),
        at.UDATA: segment(data, dpl=3),
        at.SYSRET_CODE: segment(code, dpl=3, flags=wide),
        at.CODE1: segment(code, dpl=1, flags=wide),
        at.DATA1: segment(data, dpl=1),
        at.CODE2: segment(code, dpl=2, flags=wide),
        at.DATA2: segment(data, dpl=2),
        at.CONFORMING: segment(CONFORMING_XR | ACCESSED, flags=wide),
        at.LONG_TSS: long_system(TSS386, at.TSS, at.TSS_LIMIT),
        at.LONG_LDT: long_system(LDT_TYPE, at.LDT, at.LDT_LIMIT),
        at.COMPAT0: segment(code),
        at.COMPAT3: segment(code, dpl=3),
        at.COMPAT16: segment(code, dpl=3, flags=0),
    }


def idt64(stubs: int) -> list[Words]:
    """Long mode's interrupt gates to the stubs."""
    return [long_gate(INT386, at.KCODE, stubs + 10 * n, dpl=3 if n in _OPEN else 0) for n in range(256)]


def tss64() -> bytes:
    """Long mode's TSS: the stacks of the rings, and those of the IST (SDM vol. 3, 8.7)."""
    rings = (at.ENTRY_STACK0, at.ENTRY_STACK1, at.ENTRY_STACK2)
    interrupts = (at.STACK_OTHER, at.STACK_DF, at.STACK_DF - 8, at.STACK_DF - 0x11, 1 << 47, at.TEST + 0x1000, 0)
    return struct.pack("<I3QQ7QQHH", 0, *rings, 0, *interrupts, 0, 0, 0x68)


def idt32(stubs: int) -> list[Words]:
    """Interrupt gates to the stubs (10 bytes each)."""
    return [gate(INT386, at.KCODE, stubs + 10 * n, dpl=3 if n in _OPEN else 0) for n in range(256)]


def tss32(cr3: int, eip: int = 0, esp: int = 0) -> bytes:
    """A 32-bit TSS; ``eip`` and ``esp`` of the task where it is to be switched to."""
    words = [0, at.ENTRY_STACK0, at.KDATA, at.ENTRY_STACK1, at.DATA1, at.ENTRY_STACK2, at.DATA2, cr3, eip, 2]
    words += [0, 0, 0, 0, esp, 0, 0, 0]
    words += [at.KDATA, at.KCODE, at.KDATA, at.KDATA, at.KDATA, at.KDATA, at.LDT_SELECTOR, 0x68 << 16]
    return struct.pack("<26I", *words)


def tss286() -> bytes:
    """A 16-bit TSS with stacks below 64 KiB."""
    words = [0, at.LOW_STACK, at.KDATA, at.LOW_STACK, at.DATA1, at.LOW_STACK, at.DATA2]
    return struct.pack("<22H", *words, *[0] * 15)


def page_tables(mode: Mode) -> dict[int, bytes]:
    """The contents of all table pages, by physical address."""
    wide = mode is not Mode.LEGACY
    entry, count = ("Q", 512) if wide else ("I", 1024)
    span = PAGE * count
    directory = [0] * count
    if wide:
        for index in range(4):
            directory[index] = index * span | PS | W | P
        directory[at.TEST_FRAMES // span] = at.TEST_FRAMES // span * span | PS | W | P
    else:
        directory[0] = at.PT_KERNEL | W | P
    directory[at.USER_AREA // span] = at.PT_USER | U | W | P
    directory[at.TEST // span] = at.PT_TEST | U | W | P
    large = at.TEST_FRAMES // span * span
    directory[at.LARGE // span] = large | PS | U | W | P
    user = [at.USER_AREA + PAGE * i | W | P | (U if i < 16 else 0) for i in range(count)]
    test = [at.TEST_FRAMES + PAGE * i | W | P | U if i < 16 else 0 for i in range(count)]
    kernel = [PAGE * i | W | P for i in range(count)]
    tables = {at.PD: directory, at.PT_USER: user, at.PT_TEST: test}
    if mode is Mode.LEGACY:
        tables[at.PT_KERNEL] = kernel
    else:
        upper = U | W | P if mode is Mode.LONG else P
        tables[at.PDPT] = [at.PD | upper] + [0] * 511
    if mode is Mode.LONG:
        tables[at.PML4] = [at.PDPT | U | W | P] + [0] * 511
    return {address: struct.pack(f"<{count}{entry}", *entries) for address, entries in tables.items()}


def large_offset(mode: Mode) -> int:
    """Where the test frames begin in the large page."""
    return at.TEST_FRAMES % (0x200000 if mode is not Mode.LEGACY else 0x400000)


BASE_CR4 = {Mode.LEGACY: 0, Mode.PAE: at.CR4_PAE, Mode.LONG: at.CR4_PAE | at.CR4_OSFXSR}
BASE_EFER = {Mode.LEGACY: 0, Mode.PAE: at.EFER_NXE, Mode.LONG: at.EFER_NXE | at.EFER_LME | at.EFER_SCE}


def base_cr3(mode: Mode) -> int:
    return {Mode.LEGACY: at.PD, Mode.PAE: at.PDPT, Mode.LONG: at.PML4}[mode]
