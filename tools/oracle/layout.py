"""Where everything lies in the oracles' kernels: addresses (linear = physical unless said), selectors, records.

The kernels in assembly get these numbers as constants of the same names.
"""

from __future__ import annotations

KERNEL = 0x100000
"""The image; the harness's own code and variables."""

LIVE = 0x108000
GDT = LIVE
LDT = LIVE + 0x400
IDT = LIVE + 0x1000
TSS = LIVE + 0x2000
TSS_DF = LIVE + 0x2200
TSS_OTHER = LIVE + 0x2300
TSS_286 = LIVE + 0x2400
PD = LIVE + 0x3000
PT_USER = LIVE + 0x4000
PT_TEST = LIVE + 0x5000
PT_KERNEL = LIVE + 0x6000
PDPT = LIVE + 0x7000
PML4 = LIVE + 0x8000
STACK0 = LIVE + 0xAF00
"""Initial ESP of a case at ring 0."""
ENTRY_STACK0 = LIVE + 0xBF00
"""ESP0 of the TSS."""
ENTRY_STACK1 = LIVE + 0xCF00
ENTRY_STACK2 = LIVE + 0xDF00
STACK_DF = LIVE + 0xEF00
STACK_OTHER = LIVE + 0xFF00
MASTER = 0x118000
"""Pristine copies of what is restored before each case, one after the other."""
RESTORE_LIST = 0x11E000
VARIABLES = 0x11F000
CURRENT, RECORDS_END, BASE_CR3, BASE_CR4, USE_EFER = (VARIABLES + 4 * index for index in range(5))
HARNESS_STACK = 0x121000
RECORDS = 0x122000
DATA_END = 0x2F0000
"""An image fits, with 64 KiB of code before it, into the 2 MiB that a ROM of Bochs may have."""

LOW_STACK = 0x7F00
"""A stack below 64 KiB, for 16-bit stack segments."""

USER_AREA = 0x400000
CODE = 0x400000
"""Every case's code is copied here and runs here. User page, writable, identity-mapped."""
LANDING = CODE + 0xF00
"""An INT END: where far transfers of cases lead to."""
USER_STACK = 0x402F00
DATA = 0x404000
TEST_FRAMES = 0x600000
"""Physical: the frames of the test pages (and their alias for the harness)."""
TEST = 0x800000
"""Linear: the test pages, mapped by `PT_TEST`, page n to frame n."""
LARGE = 0xC00000
"""Linear: a large page, at whose ``LARGE_OFFSET`` the test frames appear."""
FILL = 0x5AFE5AFE
"""What stacks are filled with."""
CR2_BEFORE = 0x0C2C2C20

KCODE, KDATA, UCODE, UDATA = 0x08, 0x10, 0x1B, 0x23
TSS_SELECTOR, TSS_DF_SELECTOR, LDT_SELECTOR = 0x28, 0x30, 0x38
CODE1, DATA1, CODE2, DATA2 = 0x41, 0x49, 0x52, 0x5A
LONG_TSS, LONG_LDT, COMPAT0, COMPAT3, COMPAT16 = 0xC0, 0xD0, 0xE0, 0xEB, 0xF3
"""Long mode's: descriptors of 16 bytes, and code segments of compatibility mode."""
SYSRET_CODE = 0x2B
"""Long mode's: the 64-bit code segment to which SYSRET returns, behind `UDATA`."""
CONFORMING, GATE16_CODE, TSS_286_SELECTOR, TSS_OTHER_SELECTOR = 0x60, 0x68, 0x70, 0x78
T0, T1, T2, T3 = 0x80, 0x90, 0xA0, 0xB0
"""Slots that cases fill (16 bytes each, for long mode's sake)."""
GDT_LIMIT = 0xFF
BEYOND = 0x100
L0 = 0x04
"""The first slot of the LDT."""
LDT_LIMIT = 0x1F
TSS_LIMIT = 0x67 + 0x81
"""With an I/O bitmap for ports 0 to 0x3ff and its end byte."""

END = 0x30
"""The vector by which a case ends itself; its gate has DPL 3."""
GATE = 0x40
"""A vector whose gate cases replace."""

BASE_CR0 = 0x80000031
"""PG, NE, ET, PE."""
CR0_WP, CR0_AM, CR0_TS, CR0_EM, CR0_MP = 1 << 16, 1 << 18, 8, 4, 2
CR4_VME, CR4_PVI, CR4_TSD, CR4_DE, CR4_PSE, CR4_PAE, CR4_PGE, CR4_OSFXSR = 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x200
EFER_SCE, EFER_LME, EFER_NXE = 1, 0x100, 0x800

FIELDS = (
    "code", "code_size", "patches", "patch_count", "watches", "watch_count", "msrs", "msr_count",
    "cr0", "cr4", "cr3", "efer", "idt_limit", "gdt_limit", "ldtr", "tr",
    "dr0", "dr1", "dr2", "dr3", "dr7",
    "eip", "cs", "eflags", "esp", "ss", "ds", "es", "fs", "gs",
    "eax", "ecx", "edx", "ebx", "ebp", "esi", "edi",
)  # fmt: skip
"""A record: these doublewords, in order."""
LONG_FIELDS = (*FIELDS, *(f"r{number}" for number in range(8, 16)))
"""A record of long mode: these quadwords. Registers keep their names; EAX is RAX here, and so on."""


def record_size(*, long: bool) -> int:
    """A record's size in bytes."""
    return 8 * len(LONG_FIELDS) if long else 4 * len(FIELDS)


def constants(*, long: bool) -> str:
    """The ``.equ`` lines for the assembly sources."""
    numbers = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
    width, fields = (8, LONG_FIELDS) if long else (4, FIELDS)
    numbers |= {f"R_{name.upper()}": width * index for index, name in enumerate(fields)}
    numbers["RECORD_SIZE"] = record_size(long=long)
    return "".join(f".equ {name}, {value:#x}\n" for name, value in numbers.items())
