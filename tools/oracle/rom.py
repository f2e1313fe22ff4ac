"""The ROMs that Bochs starts with: ours holds the image and enters it as a multiboot loader would."""

from __future__ import annotations

from functools import cache
from threading import Lock

from hvproto.images.assembly import assemble_text

CODE_SIZE = 0x10000
MAX_SIZE = 0x200000
_SOURCE = """
.origin 0xffff0000
.code16
.entry begin
begin:
    cli
    .byte 0x66, 0x2e, 0x0f, 0x01, 0x16      ; lgdt dword cs:[gdt_pointer]
    .word gdt_pointer - 0xffff0000
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                        ; jmp dword 8:flat
    .long flat
    .word 8
.code32
flat:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov eax, 0x2badb002
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor ebp, ebp
    cld
    mov esi, IMAGE
    mov edi, LOAD
    mov ecx, SIZE
    rep movsd
    xor esi, esi
    xor edi, edi
    jmp 8:ENTRY
.align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
    .org 0xfffffff0
.code16
    .byte 0xe9                              ; jmp begin, 16-bit
    .word 0x10000 - 0xfff3
    .byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
"""


def system_rom(image: bytes, load: int, entry: int) -> bytes:
    """A ROM for the end of the first 4 GiB: copies the image to ``load`` and goes to ``entry``, flat and protected."""
    padded = image + bytes(-len(image) % 0x1000)
    if len(padded) > MAX_SIZE - CODE_SIZE:
        raise ValueError("the image is too large for a ROM")
    return padded + _code((1 << 32) - CODE_SIZE - len(padded), len(padded) // 4, load, entry)


_ASSEMBLER = Lock()
"""The assembler's library isn't safe in two threads at a time, and two machines may be started at once."""


def _code(image: int, size: int, load: int, entry: int) -> bytes:
    with _ASSEMBLER:
        return _assembled(image, size, load, entry)


@cache
def _assembled(image: int, size: int, load: int, entry: int) -> bytes:
    values = f".equ IMAGE, {image:#x}\n.equ SIZE, {size:#x}\n.equ LOAD, {load:#x}\n.equ ENTRY, {entry:#x}\n"
    return assemble_text(values + _SOURCE, "rom").segments[0].data


def empty_option_rom() -> bytes:
    """A VGA BIOS that does nothing: 512 bytes that add up to 0 (PCI Firmware Specification 3.0, 5.2.1)."""
    rom = bytearray(b"\x55\xaa\x01\xcb" + bytes(508))
    rom[-1] = -sum(rom) & 0xFF
    return bytes(rom)
