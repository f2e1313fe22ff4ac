"""From cases to one bootable image: the kernel in assembly, the tables, the records."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from tools.oracle import layout as at
from tools.oracle.case import Case
from tools.oracle.tables import (
    BASE_CR4,
    BASE_EFER,
    Mode,
    base_cr3,
    gdt32,
    gdt64,
    idt32,
    idt64,
    page_tables,
    tss32,
    tss64,
    tss286,
)

KERNELS = {Mode.LEGACY: "kernel32.asm", Mode.PAE: "kernel32.asm", Mode.LONG: "kernel64.asm"}
FIRST_OFFSET = at.CURRENT - at.KERNEL
"""Where in the image the address of the first record stands."""


@cache
def kernel(mode: Mode) -> Image:
    path = Path(__file__).with_name(KERNELS[mode])
    return assemble_text(at.constants(long=mode is Mode.LONG) + path.read_text(encoding="ascii"), str(path))


@cache
def machine_code(text: str, bits: int) -> bytes:
    """The bytes of a case's code."""
    return assemble_text(text, "case", at.CODE, bits).segments[0].data


class _Memory:
    """The image's bytes, from ``KERNEL`` on."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.free = at.RECORDS
        self._known: dict[bytes, int] = {}

    def put(self, address: int, data: bytes) -> None:
        start = address - at.KERNEL
        if len(self.data) < start + len(data):
            self.data.extend(bytes(start + len(data) - len(self.data)))
        self.data[start : start + len(data)] = data

    def get(self, address: int, size: int) -> bytes:
        start = address - at.KERNEL
        return bytes(self.data[start : start + size]).ljust(size, b"\0")

    def add(self, data: bytes) -> int:
        """Puts data into free room, or finds it where it is already; returns its address."""
        if data not in self._known:
            self._known[data] = self.free
            self.put(self.free, data)
            self.free += len(data) + 3 & ~3
            if self.free > at.DATA_END:
                raise ValueError("too many cases for one image")
        return self._known[data]


def build(cases: Sequence[Case], mode: Mode) -> bytes:
    """The image of these cases as a flat file with a multiboot header, to be loaded at ``KERNEL``."""
    memory = _Memory()
    code = kernel(mode)
    memory.put(at.KERNEL, code.segments[0].data)
    for address, content in page_tables(mode).items():
        memory.put(address, content)
    _put_system_tables(memory, code, mode)
    size = at.record_size(long=mode is Mode.LONG)
    memory.free = at.RECORDS + size * len(cases)
    records = b"".join(_record(memory, case, mode) for case in cases)
    memory.put(at.RECORDS, records)
    _put_restore_list(memory)
    first, end = at.RECORDS, at.RECORDS + len(records)
    values = (first, end, base_cr3(mode), BASE_CR4[mode], mode is not Mode.LEGACY)
    memory.put(at.VARIABLES, struct.pack("<5I", *values))
    return bytes(memory.data)


def starting_at(image: bytes, index: int, mode: Mode) -> bytes:
    """The same image, beginning with another case."""
    first = struct.pack("<I", at.RECORDS + at.record_size(long=mode is Mode.LONG) * index)
    return image[:FIRST_OFFSET] + first + image[FIRST_OFFSET + 4 :]


def _put_system_tables(memory: _Memory, code: Image, mode: Mode) -> None:
    long, stubs, cr3 = mode is Mode.LONG, code.symbols["stubs"], base_cr3(mode)
    for selector, words in (gdt64() if long else gdt32()).items():
        memory.put(at.GDT + (selector & ~7), struct.pack(f"<{len(words)}I", *words))
    for vector, words in enumerate(idt64(stubs) if long else idt32(stubs)):
        memory.put(at.IDT + 4 * len(words) * vector, struct.pack(f"<{len(words)}I", *words))
    memory.put(at.TSS, (tss64() if long else tss32(cr3)) + b"\xff" * (at.TSS_LIMIT + 1 - 0x68))
    if long:
        return
    memory.put(at.TSS_DF, tss32(cr3, stubs + 10 * 8, at.STACK_DF))
    memory.put(at.TSS_OTHER, tss32(cr3, at.LANDING, at.STACK_OTHER))
    memory.put(at.TSS_286, tss286())


STACKS = (
    at.STACK0, at.ENTRY_STACK0, at.ENTRY_STACK1, at.ENTRY_STACK2, at.STACK_DF, at.STACK_OTHER, at.USER_STACK,
    at.LOW_STACK,
)  # fmt: skip


def _put_restore_list(memory: _Memory) -> None:
    """What is put back before each case: (destination, source, doublewords), ended by a count of 0."""
    ranges = [(at.GDT, 0x100), (at.LDT, 0x20), (at.IDT, 0x1000), (at.TSS, 0x500)]
    ranges += [(table, 0x100) for table in (at.PD, at.PT_USER, at.PT_TEST, at.PDPT, at.PML4)]
    pieces = [(address, memory.get(address, size)) for address, size in ranges]
    ranges += [(at.PT_KERNEL, 0x200)]
    fill = struct.pack("<I", at.FILL)
    pieces += [(top - 0xC0, fill * 64) for top in STACKS]
    pieces += [(at.DATA, bytes(0x100))]
    pieces += [(at.LANDING, bytes([0xCD, at.END, 0x90, 0x90]))]
    for page in range(4):
        pieces += [(at.TEST_FRAMES + 0x1000 * page + offset, bytes(32)) for offset in (0, 0x800, 0xFE0)]
    source, rows = at.MASTER, []
    for address, content in pieces:
        rows.append((address, source, len(content) // 4))
        memory.put(source, content)
        source += len(content)
    rows.append((0, 0, 0))
    memory.put(at.RESTORE_LIST, b"".join(struct.pack("<3I", *row) for row in rows))


RINGS = {
    0: {"cs": at.KCODE, "ss": at.KDATA, "ds": at.KDATA, "esp": at.STACK0},
    1: {"cs": at.CODE1, "ss": at.DATA1, "ds": at.DATA1, "esp": at.USER_STACK},
    2: {"cs": at.CODE2, "ss": at.DATA2, "ds": at.DATA2, "esp": at.USER_STACK},
    3: {"cs": at.UCODE, "ss": at.UDATA, "ds": at.UDATA, "esp": at.USER_STACK},
}


REGISTERS = {
    "eax": 0xA0A0A0A0, "ecx": 0xC1C1C1C1, "edx": 0xD2D2D2D2, "ebx": 0xB3B3B3B3, "ebp": 0xB5B5B5B5, "esi": 0x56565656,
    "edi": 0xD7D7D7D7,
}  # fmt: skip
LONG_REGISTERS = {name: value << 32 | value for name, value in REGISTERS.items()}
LONG_REGISTERS |= {f"r{number}": number * 0x1111111111111111 & ~(1 << 63) | 0x42 for number in range(8, 16)}
LONG_MSRS = {
    0x174: at.KCODE, 0x175: at.ENTRY_STACK1, 0x176: at.LANDING,  # SYSENTER_CS, _ESP, _EIP
    0xC0000081: (at.UCODE & ~3) << 48 | at.KCODE << 32, 0xC0000082: at.LANDING, 0xC0000083: at.LANDING,  # STAR ...
    0xC0000084: 0x300,  # SFMASK
    0xC0000100: at.DATA + 0x400, 0xC0000101: at.DATA + 0x800, 0xC0000102: at.DATA + 0xC00,  # FS, GS, kernel GS
}  # fmt: skip


def _record(memory: _Memory, case: Case, mode: Mode) -> bytes:
    long = mode is Mode.LONG
    code = machine_code(case.code, int(case.settings.get("bits", 64 if long else 32)))
    if len(code) > at.LANDING - at.CODE:
        raise ValueError(f"{case.name}: the code is too long")
    patches = [number for patch in case.patches for number in patch]
    msrs = dict(LONG_MSRS if long else ()) | dict(case.msrs)
    ring = RINGS[case.ring]
    names = at.LONG_FIELDS if long else at.FIELDS
    fields = dict.fromkeys(names, 0) | ring | dict.fromkeys(("es", "fs", "gs"), ring["ds"])
    fields |= {
        "code": memory.add(code),
        "code_size": len(code),
        "patches": memory.add(struct.pack(f"<{len(patches)}I", *patches)),
        "patch_count": len(case.patches),
        "watches": memory.add(struct.pack(f"<{len(case.watches)}I", *case.watches)),
        "watch_count": len(case.watches),
        "msrs": memory.add(b"".join(struct.pack("<IQ", *row) for row in msrs.items())),
        "msr_count": len(msrs),
        "cr0": at.BASE_CR0,
        "cr3": base_cr3(mode),
        "cr4": BASE_CR4[mode],
        "efer": BASE_EFER[mode],
        "idt_limit": 0xFFF if long else 0x7FF,
        "gdt_limit": at.GDT_LIMIT,
        "ldtr": at.LONG_LDT if long else at.LDT_SELECTOR,
        "tr": at.LONG_TSS if long else at.TSS_SELECTOR,
        "eip": at.CODE,
        "eflags": case.eflags,
    }
    fields |= LONG_REGISTERS if long else REGISTERS
    fields |= {name: value for name, value in case.settings.items() if name != "bits"}
    if unknown := fields.keys() - set(names):
        raise ValueError(f"{case.name}: no such settings: {sorted(unknown)}")
    width, letter = (8, "Q") if long else (4, "I")
    mask = (1 << 8 * width) - 1
    return struct.pack(f"<{len(names)}{letter}", *(fields[name] & mask for name in names))
