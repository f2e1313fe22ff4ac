"""A kernel that runs snippets one after the other and writes down what each of them came to.

Every snippet is entered by IRET at ring 0 or ring 3 with known registers, and ends in an event of its own: at the
latest the INT3 that fills its slot. The handler logs the frame, the registers and CR2, restores the processor's tables
and goes on with the next one. Run alone and as a guest, the log and all of memory must be the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache

from hvproto.addresses import GPA
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image, Segment

SLOT = 64
LOG = 0x140000
ENTRY = 24
"""Doublewords of a log entry."""
SNIPPETS = 0x120000
DATA = 0x180000
UNMAPPED = 0x1C0000
STUBS = 0x116000
KERNEL_ONLY = 0x1A0000
READ_ONLY = 0x1B0000
GDT = 0x110000

FIXED_GDT = {
    0x08: 0x00CF9B000000FFFF, 0x10: 0x00CF93000000FFFF, 0x18: 0x00CFFB000000FFFF, 0x20: 0x00CFF3000000FFFF,
    0x28: 0x0000890000000067 | (0x112000 & 0xFFFFFF) << 16,
    0x30: 0x00CF9F000000FFFF,  # conforming code
    0x38: 0x00CF1B000000FFFF,  # code, not present
    0x40: 0x00CF13000000FFFF,  # data, not present
    0x48: 0x00CF91000000FFFF,  # data, read only
    0x50: 0x00CFF9000000FFFF,  # code of ring 3 that can't be read
    0x58: 0x00CF931800001000 | 0,  # data at 0x180000
    0x60: 0x00CF97000000FFFF,  # data, expand-down
    0x68: 0x000093000000FFFF,  # 16-bit data
    0x70: 0x00CF92000000FFFF,  # data, not accessed yet
    0x78: 0x00CF9A000000FFFF,  # code, not accessed yet
    0x80: 0x0000820000000FFF,  # LDT
    0x88: 0x00008C0000080000 | 0x100000 << 0,  # call gate
    0x90: 0x0000850000280000,  # task gate
    0x98: 0x00CFF2000000FFFF,  # data of ring 3, not accessed yet
    0xA0: 0x00CFDB000000FFFF,  # code of ring 2
    0xA8: 0x00CFD3000000FFFF,  # data of ring 2
    0xB0: 0x00CFFA000000FFFF,  # code of ring 3, not accessed yet
    0xB8: 0x0000890000000067 | (0x112000 & 0xFFFFFF) << 16,  # another TSS
}  # fmt: skip

_KERNEL = """
.origin 0x100000
.entry start
GDT = 0x110000
IDT = 0x111000
TSS = 0x112000
DIRECTORY = 0x113000
TABLE = 0x114000
STUBS = 0x116000
RECORDS = 0x118000
KSTACK = 0x11ff00
LOG = 0x140000

start:
    cli
    cld
    mov esp, KSTACK
    lgdt [gdt_pointer]
    jmp 0x08:1f
1:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov eax, DIRECTORY
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    lidt [idt_pointer]
    mov eax, 0x28
    ltr ax
next:
    mov esi, [index]
    cmp esi, [count]
    jae finish
    inc dword ptr [index]
    shl esi, 4
    add esi, RECORDS
    mov eax, [esi + 4]
    cmp eax, 0
    je .ring0
    push 0x23
    push 0x180800
    push [esi + 8]
    push 0x1b
    jmp .entry
.ring0:
    mov eax, [esi + 8]
    mov edx, [esi]
    mov esp, 0x180800
    push eax
    push 0x08
    push edx
    jmp .registers
.entry:
    push [esi]
.registers:
    mov eax, 0x180010
    mov ebx, 0x180100
    mov ecx, 2
    mov edx, 0x180204
    mov ebp, 0x180400
    mov esi, 0x180200
    mov edi, 0x180300
    iret

common:                                 ; vector, then whatever the processor pushed
    pushad
    mov eax, ds
    push eax
    mov eax, es
    push eax
    mov eax, fs
    push eax
    mov eax, gs
    push eax
    mov eax, ss
    push eax
    mov eax, cr2
    push eax
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    cld
    mov edi, [log]
    mov eax, [index]
    stosd
    mov esi, esp
    mov ecx, 23
    mov edx, esp                        ; not beyond the stack's page
    or edx, 0xfff
    inc edx
    sub edx, esp
    shr edx, 2
    cmp edx, ecx
    jae .copy
    mov ecx, edx
.copy:
    mov ebx, 23
    sub ebx, ecx
    rep movsd
    lea edi, [edi + ebx*4]
    mov [log], edi
    mov esp, KSTACK
    mov ss, [data_selector]
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov dword ptr [TSS + 4], KSTACK
    push 2
    popf
    mov eax, DIRECTORY
    mov cr3, eax
    mov eax, 0
    mov cr2, eax
    mov eax, 0x80010011
    mov cr0, eax
    mov eax, 0
    mov cr4, eax
    jmp next

finish:
    cli
    hlt
    jmp finish

.align 4
index: .long 0
count: .long 0
log:   .long LOG
data_selector: .long 0x10
gdt_pointer:
    .word 0xbf
    .long GDT
.align 4
idt_pointer:
    .word 0x7ff
    .long IDT
"""


@dataclass(frozen=True)
class Snippet:
    """Code, the ring it runs at, and the EFLAGS it starts with."""

    code: bytes
    ring: int = 0
    eflags: int = 2


def kernel(snippets: list[Snippet], *, descriptors: dict[int, int] | None = None, gdt_limit: int = 0xBF) -> Image:
    """The image of a kernel that runs these snippets."""
    if len(snippets) > (0x140000 - SNIPPETS) // SLOT:
        raise ValueError("too many snippets")
    program = _program()
    common = program.symbols["common"]
    stubs = b"".join(
        (b"\x68" + struct.pack("<I", v) + b"\xe9" + struct.pack("<i", common - (STUBS + v * 16 + 10))).ljust(
            16, b"\xcc"
        )
        for v in range(256)
    )
    idt = b"".join(_gate(0x116000 + v * 16, v) for v in range(256))
    gdt = bytearray(0x1000)
    for selector, value in {**FIXED_GDT, **(descriptors or {})}.items():
        struct.pack_into("<Q", gdt, selector, value)
    tss = bytearray(0x68)
    struct.pack_into("<II", tss, 4, 0x11FF00, 0x10)
    struct.pack_into("<H", tss, 0x66, 0x68)
    directory = bytearray(0x1000)
    struct.pack_into("<I", directory, 0, 0x114007)
    table = bytearray(0x1000)
    for page in range(512):
        address = page << 12
        flags = 3
        if SNIPPETS <= address < LOG or DATA <= address < KERNEL_ONLY:
            flags = 7
        elif READ_ONLY <= address < UNMAPPED:
            flags = 5
        if address < UNMAPPED:
            struct.pack_into("<I", table, page * 4, address | flags)
    records = b"".join(struct.pack("<IIII", SNIPPETS + n * SLOT, s.ring, s.eflags, 0) for n, s in enumerate(snippets))
    code = b"".join(s.code.ljust(SLOT, b"\xcc") for s in snippets)
    places = {
        0x110000: bytes(gdt), 0x111000: idt, 0x112000: bytes(tss), 0x113000: bytes(directory),
        0x114000: bytes(table), 0x116000: stubs, 0x118000: records, SNIPPETS: code,
    }  # fmt: skip
    code_segment = program.segments[0]
    patched = bytearray(code_segment.data)
    for name, value, size in (("count", len(snippets), 4), ("gdt_pointer", gdt_limit, 2)):
        at = program.symbols[name] - code_segment.address
        patched[at : at + size] = value.to_bytes(size, "little")
    segments = {code_segment.address: bytes(patched), **{GPA(at): data for at, data in places.items()}}
    return replace(program, segments=tuple(Segment(GPA(at), data, len(data)) for at, data in sorted(segments.items())))


@cache
def _program() -> Image:
    return assemble_text(_KERNEL)


def _gate(offset: int, vector: int) -> bytes:
    kind = 0x8E | (0x60 if vector % 2 else 0) | (1 if vector % 5 == 0 else 0)
    return struct.pack("<HHHH", offset & 0xFFFF, 8, kind << 8, offset >> 16)


@dataclass(frozen=True)
class Logged:
    """One entry of the log: which snippet, CR2, data selectors, registers, vector, and the frame."""

    snippet: int
    words: tuple[int, ...]

    def __str__(self) -> str:
        cr2, ss, gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, *frame = self.words
        return (
            f"snippet {self.snippet}: vector {vector} frame {' '.join(f'{w:x}' for w in frame)} | cr2 {cr2:x} ss {ss:x} "
            f"gs {gs:x} fs {fs:x} es {es:x} ds {ds:x} | eax {eax:x} ecx {ecx:x} edx {edx:x} ebx {ebx:x} esp {esp:x} "
            f"ebp {ebp:x} esi {esi:x} edi {edi:x}"
        )


def log_of(ram: bytes) -> list[Logged]:
    """The log in a guest's memory."""
    entries = []
    at = LOG
    while at + ENTRY * 4 < len(ram):
        words = struct.unpack_from(f"<{ENTRY}I", ram, at)
        if not words[0]:
            return entries
        entries.append(Logged(words[0] - 1, words[1:]))
        at += ENTRY * 4
