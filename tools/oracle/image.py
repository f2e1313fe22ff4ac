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
from tools.oracle.tables import Mode, base_cr3, gdt32, idt32, page_tables, tss32, tss286

KERNELS = {Mode.LEGACY: "kernel32.asm", Mode.PAE: "kernel32.asm", Mode.LONG: "kernel64.asm"}
FIRST_OFFSET = at.CURRENT - at.KERNEL
"""Where in the image the address of the first record stands."""


@cache
def kernel(mode: Mode) -> Image:
    path = Path(__file__).with_name(KERNELS[mode])
    return assemble_text(at.constants() + path.read_text(encoding="ascii"), str(path))


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
    memory.free = at.RECORDS + at.RECORD_SIZE * len(cases)
    records = b"".join(_record(memory, case, mode) for case in cases)
    memory.put(at.RECORDS, records)
    _put_restore_list(memory)
    first, end = at.RECORDS, at.RECORDS + len(records)
    cr4 = 0 if mode is Mode.LEGACY else at.CR4_PAE
    memory.put(at.VARIABLES, struct.pack("<5I", first, end, base_cr3(mode), cr4, mode is not Mode.LEGACY))
    return bytes(memory.data)


def starting_at(image: bytes, index: int) -> bytes:
    """The same image, beginning with another case."""
    first = struct.pack("<I", at.RECORDS + at.RECORD_SIZE * index)
    return image[:FIRST_OFFSET] + first + image[FIRST_OFFSET + 4 :]


def _put_system_tables(memory: _Memory, code: Image, mode: Mode) -> None:
    for selector, words in gdt32().items():
        memory.put(at.GDT + (selector & ~7), struct.pack("<2I", *words))
    for vector, words in enumerate(idt32(code.symbols["stubs"])):
        memory.put(at.IDT + 8 * vector, struct.pack("<2I", *words))
    cr3 = base_cr3(mode)
    memory.put(at.TSS, tss32(cr3) + b"\xff" * (at.TSS_LIMIT + 1 - 0x68))
    memory.put(at.TSS_DF, tss32(cr3, code.symbols["stubs"] + 10 * 8, at.STACK_DF))
    memory.put(at.TSS_OTHER, tss32(cr3, at.LANDING, at.STACK_OTHER))
    memory.put(at.TSS_286, tss286())


STACKS = (
    at.STACK0, at.ENTRY_STACK0, at.ENTRY_STACK1, at.ENTRY_STACK2, at.STACK_DF, at.STACK_OTHER, at.USER_STACK,
    at.LOW_STACK,
)  # fmt: skip


def _put_restore_list(memory: _Memory) -> None:
    """What is put back before each case: (destination, source, doublewords), ended by a count of 0."""
    ranges = [(at.GDT, 0x100), (at.LDT, 0x20), (at.IDT, 0x800), (at.TSS, 0x500)]
    ranges += [(table, 0x100) for table in (at.PD, at.PT_USER, at.PT_TEST, at.PDPT, at.PML4)]
    pieces = [(address, memory.get(address, size)) for address, size in ranges]
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


def _record(memory: _Memory, case: Case, mode: Mode) -> bytes:
    code = machine_code(case.code, int(case.settings.get("bits", 32)))
    if len(code) > at.LANDING - at.CODE:
        raise ValueError(f"{case.name}: the code is too long")
    patches = [number for patch in case.patches for number in patch]
    ring = RINGS[case.ring]
    fields = dict.fromkeys(at.FIELDS, 0) | ring | dict.fromkeys(("es", "fs", "gs"), ring["ds"])
    fields |= {
        "code": memory.add(code),
        "code_size": len(code),
        "patches": memory.add(struct.pack(f"<{len(patches)}I", *patches)),
        "patch_count": len(case.patches),
        "watches": memory.add(struct.pack(f"<{len(case.watches)}I", *case.watches)),
        "watch_count": len(case.watches),
        "cr0": at.BASE_CR0,
        "cr3": base_cr3(mode),
        "cr4": 0 if mode is Mode.LEGACY else at.CR4_PAE,
        "efer": 0 if mode is Mode.LEGACY else at.EFER_NXE,
        "idt_limit": 0x7FF,
        "gdt_limit": at.GDT_LIMIT,
        "ldtr": at.LDT_SELECTOR,
        "tr": at.TSS_SELECTOR,
        "eip": at.CODE,
        "eflags": case.eflags,
        "eax": 0xA0A0A0A0, "ecx": 0xC1C1C1C1, "edx": 0xD2D2D2D2, "ebx": 0xB3B3B3B3,
        "ebp": 0xB5B5B5B5, "esi": 0x56565656, "edi": 0xD7D7D7D7,
    }  # fmt: skip
    fields |= {name: value for name, value in case.settings.items() if name != "bits"}
    if unknown := fields.keys() - set(at.FIELDS):
        raise ValueError(f"{case.name}: no such settings: {sorted(unknown)}")
    return struct.pack(f"<{len(at.FIELDS)}I", *(fields[name] & 0xFFFFFFFF for name in at.FIELDS))
