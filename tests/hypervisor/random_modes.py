"""The modes of the processor that random bytes are executed in, and the tables around them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hvproto.machine.ram import MIB
from hvproto.processor import segments as seg
from hvproto.processor.cpu import Cpu
from hvproto.processor.segments import SegmentRegister, TableRegister, encode_descriptor, encode_gate, flat
from hvproto.processor.settings import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    EFER_LME,
    EFLAGS_IF,
    EFLAGS_VM,
    Setting,
    SettingValue,
)

MEMORY = MIB
"""Bytes that each kernel has."""
KERNEL, VARIABLES, LOG, KERNEL_STACK = 0x5000, 0x6000, 0x6100, 0x7000
"""The kernel's code, and its one page of data, which ends in its stack. Its tables follow further up."""
DATA, STACK = 0x9000, 0xB000
"""Two pages that any code may write to; the program's stack lies at the end of the second one."""
READ_ONLY, PROGRAM, ABSENT, KERNEL_ONLY = 0xB000, 0xC000, 0xD000, 0xE000
"""Pages of which paging makes something; without it they are memory as any other."""
STUBS = 0x11000
GDT, IDT, TSS = 0x20000, 0x21000, 0x23000
ROOT, ROOT_END = 0x30000, 0x34000

CODE0, DATA0, CODE3, DATA3, TASK, CODE16, DATA16, LONG0, LONG3 = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x38, 0x40, 0x4B
_ATTRIBUTES = {0: flat(0, code=True, dpl=0).attributes, 3: flat(0, code=True, dpl=3).attributes}
_WIDE, _NARROW = seg.LONG | seg.DEFAULT_BIG, seg.DEFAULT_BIG | seg.GRANULARITY
_TASK = seg.Segment(TASK, TSS, 0x67, seg.PRESENT | seg.TSS32_AVAILABLE << seg.TYPE_SHIFT)
_SEGMENTS = {
    CODE0: flat(CODE0, code=True, dpl=0), DATA0: flat(DATA0, code=False, dpl=0),
    CODE3: flat(CODE3, code=True, dpl=3), DATA3: flat(DATA3, code=False, dpl=3), TASK: _TASK,
    CODE16: seg.Segment(CODE16, 0, 0xFFFF, _ATTRIBUTES[0] & ~_NARROW),
    DATA16: seg.Segment(DATA16, 0, 0xFFFF, flat(0, code=False, dpl=0).attributes & ~_NARROW),
    LONG0: seg.Segment(LONG0, 0, 0xFFFF_FFFF, _ATTRIBUTES[0] ^ _WIDE),
    LONG3: seg.Segment(LONG3, 0, 0xFFFF_FFFF, _ATTRIBUTES[3] ^ _WIDE),
}  # fmt: skip
_REAL_SEGMENT = seg.Segment(0, 0, 0xFFFF, seg.PRESENT | seg.S_BIT | seg.WRITABLE | seg.ACCESSED)


@dataclass(frozen=True)
class Mode:
    """What the random bytes are executed as; ``settings`` are the kernel's, in the order in which they are written."""

    name: str
    width: int
    """Of the kernel around them, in bits."""
    frame: tuple[int, ...]
    """What the return to them takes from the stack behind the instruction pointer."""
    stack: tuple[int, int]
    """Where that is, and the selector of SS."""
    settings: Mapping[Setting, SettingValue]
    tables: Callable[[], dict[int, bytes]]
    """The page tables, by their addresses."""
    is_program: bool = False
    """Whether they are executed in ring 3."""

    @property
    def data_selector(self) -> int:
        """What is in DS and ES."""
        return DATA3 if self.is_program and self.width == 32 and not self.frame[1] & EFLAGS_VM else DATA0

    def enter(self, cpu: Cpu, eip: int) -> None:
        """Have a processor stand before an instruction of the kernel's, with its settings."""
        for setting, value in self.settings.items():
            cpu.write_setting(setting, value)
        code, data = {16: (_REAL_SEGMENT, _REAL_SEGMENT), 32: (_SEGMENTS[CODE0], _SEGMENTS[DATA0]),
                      64: (_SEGMENTS[LONG0], _SEGMENTS[DATA0])}[self.width]  # fmt: skip
        cpu.set_segments({**dict.fromkeys(SegmentRegister, data), SegmentRegister.CS: code})
        cpu.eip = eip


def system_tables(width: int) -> dict[int, bytes]:
    """Descriptor tables and task segment of a kernel of 32 or 64 bits, by their addresses; every fifth gate is open to
    ring 3."""
    gdt, task = bytearray(0x60), bytearray(0x68)
    for selector, segment in _SEGMENTS.items():
        struct.pack_into("<Q", gdt, selector & ~7, encode_descriptor(segment))
    selector, size = (LONG0, 16) if width == 64 else (CODE0, 8)
    gates = (encode_gate(selector, STUBS + 16 * n, dpl=0 if n % 5 else 3) for n in range(256))
    struct.pack_into("<II", task, 4, KERNEL_STACK, 0 if width == 64 else DATA0)
    struct.pack_into("<H", task, 0x66, 0x68)
    return {GDT: bytes(gdt), IDT: b"".join(gate.to_bytes(size, "little") for gate in gates), TSS: bytes(task)}


def _page_table(size: int) -> bytes:
    """All of memory one to one: the program's pages for everybody, the others for the kernel."""
    entries = []
    for page in range(0, MEMORY, 0x1000):
        rights = 7 if DATA <= page < STACK or page == PROGRAM else 5 if page == READ_ONLY else 3
        entries.append(0 if page == ABSENT else page | rights)
    return b"".join(entry.to_bytes(size, "little") for entry in entries)


def _two_levels() -> dict[int, bytes]:
    return {ROOT: struct.pack("<I", ROOT + 0x1007), ROOT + 0x1000: _page_table(4)}


def _three_levels() -> dict[int, bytes]:
    return {
        ROOT: struct.pack("<Q", ROOT + 0x1001), ROOT + 0x1000: struct.pack("<Q", ROOT + 0x2007),
        ROOT + 0x2000: _page_table(8),
    }  # fmt: skip


def _four_levels() -> dict[int, bytes]:
    return {
        ROOT: struct.pack("<Q", ROOT + 0x1007), ROOT + 0x1000: struct.pack("<Q", ROOT + 0x2007),
        ROOT + 0x2000: struct.pack("<Q", ROOT + 0x3007), ROOT + 0x3000: _page_table(8),
    }  # fmt: skip


_PROTECTED = CR0_PE | CR0_ET
_TABLES: dict[Setting, SettingValue] = {
    Setting.GDTR: TableRegister(GDT, 0x5F), Setting.IDTR: TableRegister(IDT, 0x7FF), Setting.TR: _TASK
}  # fmt: skip
_PAGED: dict[Setting, SettingValue] = {Setting.CR3: ROOT, Setting.CR0: _PROTECTED | CR0_PG | CR0_WP}
_LONG: dict[Setting, SettingValue] = {
    Setting.EFER: EFER_LME, Setting.CR4: CR4_PAE, **_PAGED, **_TABLES, Setting.IDTR: TableRegister(IDT, 0xFFF)
}  # fmt: skip


_IN_RING_0 = (STACK - 64, DATA0)
_ON_KERNEL_STACK = (KERNEL_STACK - 64, DATA0)
_TO_RING_3 = (CODE3, 2 | EFLAGS_IF, STACK - 0x100, DATA3)
MODES = (
    Mode("flat", 32, (CODE0, 2), _IN_RING_0, {Setting.CR0: _PROTECTED, **_TABLES}, dict),
    Mode("paging", 32, (CODE0, 2), _IN_RING_0, {**_PAGED, **_TABLES}, _two_levels),
    Mode("PAE", 32, (CODE0, 2), _IN_RING_0, {Setting.CR4: CR4_PAE, **_PAGED, **_TABLES}, _three_levels),
    Mode("64-bit", 64, (LONG0, 2, STACK - 64, DATA0), _ON_KERNEL_STACK, _LONG, _four_levels),
    Mode("16-bit", 32, (CODE16, 2), (STACK - 64, DATA16), {Setting.CR0: _PROTECTED, **_TABLES}, dict),
    Mode("real", 16, (0, 2), (STACK - 64, 0), {Setting.IDTR: TableRegister(0, 0x3FF), Setting.CR0: CR0_ET}, dict),
    Mode("program", 32, _TO_RING_3, _ON_KERNEL_STACK, {**_PAGED, **_TABLES}, _two_levels, True),
    Mode("64-bit program", 64, (LONG3, 2 | EFLAGS_IF, STACK - 64, DATA3), _ON_KERNEL_STACK, _LONG, _four_levels, True),
    Mode("virtual-8086", 32, (0, EFLAGS_VM | 2 | EFLAGS_IF, STACK - 0x100, 0, 0, 0, 0, 0), _ON_KERNEL_STACK,
         {**_PAGED, **_TABLES}, _two_levels, True),
)  # fmt: skip
