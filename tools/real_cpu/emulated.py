"""The same cases on hvproto's processor: long mode as Linux sets it up, with the layout's pages and selectors.

Every gate leads to a HLT of its own at ring 0, so a run ends with the exception's frame on the kernel's stack.
"""

from __future__ import annotations

import struct

from hvproto.machine.ram import MIB, Ram
from hvproto.processor.paging import NX, PS, A, D, P, U, W
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.segments import (
    ACCESSED,
    DEFAULT_BIG,
    DPL_MASK,
    GRANULARITY,
    LONG,
    PRESENT,
    S_BIT,
    TYPE_SHIFT,
    WRITABLE,
    Segment,
    SegmentRegister,
    TableRegister,
    encode_descriptor,
    flat,
)
from hvproto.processor.settings import (
    CR0_AM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    Setting,
)
from tools.real_cpu import layout
from tools.real_cpu.case import EFLAGS, REGISTERS, Case
from tools.real_cpu.layout import GDT_LIMIT, LDT_ENTRIES, PAGE, PAGES, LdtEntry, Rights
from tools.real_cpu.report import WITH_ERROR_CODE, Report, changes, first_contents

KERNEL = 0xFFFF_8000_0000_0000
"""Physical memory as the kernel has it mapped, out of the reach of ring 3."""
GDT, LDT, IDT, TSS, STUBS, STACK_TOP = 0x1000, 0x1800, 0x2000, 0x3000, 0x4000, 0x7000
ROOT, TABLES, FRAMES = 0x10000, 0x11000, 0x80000
_TSS_TYPE, _LDT_TYPE = 9, 2
_OPEN_GATES = (3, 4, 0x80)
"""Those that Linux lets ring 3 call (arch/x86/kernel/idt.c)."""
_CYCLES = 1_000_000
_FRAME_OF = {address: FRAMES + PAGE * index for index, address in enumerate(PAGES)}


class EmulatedProcessor:
    """Ring 3 of our processor; a fresh one for each case."""

    def __init__(self, engine: str) -> None:
        self.engine = engine

    def run(self, case: Case) -> Report:
        """Run a case until an exception ends it. Raises RuntimeError if none does."""
        ram = Ram(MIB)
        view = ram.view
        contents = first_contents(case)
        for address, page in contents.items():
            view[_FRAME_OF[address] : _FRAME_OF[address] + PAGE] = page
        for at, table in _tables():
            view[at : at + len(table)] = table
        cpu = Processor(view, self.engine)
        _prepare(cpu)
        narrow = case.bits == 32
        code, data = _user_segments(narrow)
        cpu.set_segments(
            {
                SegmentRegister.CS: code,
                SegmentRegister.SS: _descriptor_of(layout.USER_DATA),
                SegmentRegister.DS: data,
                SegmentRegister.ES: data,
                SegmentRegister.FS: Segment(0),
                SegmentRegister.GS: Segment(0),
            }
        )
        for index, value in enumerate(case.first_registers):
            cpu.set_gpr(index, value)
        cpu.eflags = EFLAGS | case.eflags
        cpu.eip = case.origin
        if cpu.run(_CYCLES) is not Stop.HALT:
            raise RuntimeError(f"{case.name}: no end at {cpu.eip:#x}")
        memory = changes(contents, lambda page: bytes(view[_FRAME_OF[page] : _FRAME_OF[page] + PAGE]))
        return _report(cpu, memory)


def _report(cpu: Processor, memory: dict[str, str]) -> Report:
    vector = (cpu.eip - 1 - KERNEL - STUBS) // 16
    words = list(struct.unpack("<6Q", cpu.read_bytes(cpu.esp, 48)))
    error = words.pop(0) if vector in WITH_ERROR_CODE and _has_error(cpu) else 0
    rip, cs, rflags, rsp, ss = words[:5]
    registers = [cpu.gpr(index) for index in range(16)]
    registers[REGISTERS.index("rsp")] = rsp
    return Report.of(vector, error, cpu.cr2, (rip, cs, ss, rflags), registers, memory)


def _has_error(cpu: Processor) -> bool:
    return cpu.esp == KERNEL + STACK_TOP - 48


def _prepare(cpu: Processor) -> None:
    cpu.write_setting(Setting.CR4, CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT)
    cpu.write_setting(Setting.CR3, ROOT)
    cpu.write_setting(Setting.EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
    cpu.write_setting(Setting.CR0, CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG)
    cpu.write_setting(Setting.GDTR, TableRegister(KERNEL + GDT, GDT_LIMIT))
    cpu.write_setting(Setting.IDTR, TableRegister(KERNEL + IDT, 0xFFF))
    cpu.write_setting(Setting.TR, Segment(layout.TSS, KERNEL + TSS, 0x67, PRESENT | _TSS_TYPE << TYPE_SHIFT))
    limit = 8 * len(LDT_ENTRIES) - 1
    cpu.write_setting(Setting.LDTR, Segment(layout.LDT, KERNEL + LDT, limit, PRESENT | _LDT_TYPE << TYPE_SHIFT))


def _user_segments(narrow: bool) -> tuple[Segment, Segment]:
    if narrow:
        return _descriptor_of(layout.USER_CODE32), _descriptor_of(layout.USER_DATA)
    return _descriptor_of(layout.USER_CODE64), Segment(0)


def _descriptor_of(selector: int) -> Segment:
    """Linux' segments of ring 3 and ring 0 (arch/x86/kernel/cpu/common.c)."""
    dpl = selector & 3
    if selector in (layout.USER_CODE64, layout.KERNEL_CODE):
        wide = flat(selector, code=True, dpl=dpl)
        return Segment(selector, 0, wide.limit, wide.attributes & ~DEFAULT_BIG | LONG)
    return flat(selector, code=selector == layout.USER_CODE32, dpl=dpl)


def _tables() -> list[tuple[int, bytes]]:
    named = (layout.KERNEL_CODE, layout.KERNEL_DATA, layout.USER_CODE32, layout.USER_DATA, layout.USER_CODE64)
    gdt = {selector >> 3: encode_descriptor(_descriptor_of(selector)) for selector in named}
    gdt[layout.CPU_NUMBER >> 3] = encode_descriptor(
        Segment(layout.CPU_NUMBER, 0, 1, PRESENT | S_BIT | DEFAULT_BIG | DPL_MASK | ACCESSED)
    )
    for selector, base, limit, kind in (
        (layout.TSS, TSS, 0x67, _TSS_TYPE),
        (layout.LDT, LDT, 8 * len(LDT_ENTRIES) - 1, _LDT_TYPE),
    ):
        low = Segment(selector, KERNEL + base & 0xFFFF_FFFF, limit, PRESENT | kind << TYPE_SHIFT)
        gdt[selector >> 3], gdt[(selector >> 3) + 1] = encode_descriptor(low), KERNEL >> 32
    entries = [gdt.get(index, 0) for index in range((GDT_LIMIT + 1) // 8)]
    ldt = [encode_descriptor(_ldt_segment(entry)) for entry in LDT_ENTRIES.values()]
    stubs = b"".join(b"\xf4" + bytes(15) for _ in range(256))
    tss = struct.pack("<IQ", 0, KERNEL + STACK_TOP) + bytes(0x58) + struct.pack("<HH", 0, 0x68)
    return [
        (GDT, struct.pack(f"<{len(entries)}Q", *entries)),
        (LDT, struct.pack(f"<{len(ldt)}Q", *ldt)),
        (IDT, b"".join(_gate(vector) for vector in range(256))),
        (STUBS, stubs),
        (TSS, tss),
        *_page_tables(),
    ]


def _ldt_segment(entry: LdtEntry) -> Segment:
    """The descriptor that Linux makes of an entry: ``fill_ldt``, arch/x86/include/asm/desc.h."""
    attributes = S_BIT | DPL_MASK | ACCESSED | entry.contents << 10
    attributes |= 0 if entry.restricted else WRITABLE  # of code: READABLE, the same bit
    attributes |= PRESENT * entry.present | DEFAULT_BIG * entry.wide | GRANULARITY * entry.pages
    limit = entry.limit << 12 | 0xFFF if entry.pages else entry.limit
    return Segment(0, entry.base, limit, attributes)


def _gate(vector: int) -> bytes:
    """A 16-byte interrupt gate (SDM vol. 3, figure 6-8)."""
    target = KERNEL + STUBS + 16 * vector
    kind = 0x8E | (3 if vector in _OPEN_GATES else 0) << 5
    return struct.pack("<HHBBHII", target & 0xFFFF, layout.KERNEL_CODE, 0, kind, target >> 16 & 0xFFFF, target >> 32, 0)


def _page_tables() -> list[tuple[int, bytes]]:
    """Four levels for the layout's pages, and one large page for the kernel (SDM vol. 3, 4.5)."""
    tables: dict[int, dict[int, int]] = {ROOT: {}}

    def below(table: int, index: int) -> int:
        """The next table behind an entry; a new one, with all rights, if there is none yet."""
        if index not in tables[table]:
            new = TABLES + PAGE * (len(tables) - 1)
            tables[new] = {}
            tables[table][index] = new | P | W | U
        return tables[table][index] & ~0xFFF

    for address, rights in PAGES.items():
        if rights is Rights.NONE:
            continue
        table = ROOT
        for shift in (39, 30, 21):
            table = below(table, address >> shift & 511)
        bits = P | U | A | D | W * (Rights.WRITE in rights) | NX * (Rights.EXECUTE not in rights)
        tables[table][address >> 12 & 511] = _FRAME_OF[address] | bits
    table = below(below(ROOT, KERNEL >> 39 & 511), 0)
    tables[table][0] = PS | P | W | A | D
    return [
        (at, struct.pack("<512Q", *(entries.get(index, 0) for index in range(512)))) for at, entries in tables.items()
    ]
