"""Pieces of small kernels for whole machines: tables, interrupt controller and timer, in real code."""

from __future__ import annotations

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.machine.machine import Machine

RAM = 1 << 21

PRELUDE = """
.origin 0x100000
.entry start
.macro GATE number, target, kind
        mov eax, \\target
        mov word ptr [idt + \\number * 8], ax
        mov word ptr [idt + \\number * 8 + 2], 0x08
        mov word ptr [idt + \\number * 8 + 4], \\kind
        shr eax, 16
        mov word ptr [idt + \\number * 8 + 6], ax
.endm
.macro EOI
        push eax
        mov al, 0x20
        out 0x20, al
        pop eax
.endm
.macro SET_TIMER count
        mov al, 0x34                ; counter 0, both bytes, mode 2
        out 0x43, al
        mov al, (\\count) & 0xff
        out 0x40, al
        mov al, (\\count) >> 8
        out 0x40, al
.endm
.macro PUTC character
        mov al, \\character
        out 0xe9, al
.endm
start:
        mov esp, 0x90000
        lgdt [gdt_pointer]
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        jmp 0x08:loaded
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
gdt_tss: .quad 0
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
idt_pointer:
        .word 0x7ff
        .long idt
loaded:
        lidt [idt_pointer]
        mov al, 0x11
        out 0x20, al
        out 0xa0, al
        mov al, 0x20
        out 0x21, al
        mov al, 0x28
        out 0xa1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1
        out 0x21, al
        out 0xa1, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0xff
        out 0xa1, al
"""

POSTLUDE = """
.align 8
ticks:  .long 0
seen:   .long 0
idt:    .space 0x800
"""

TICK = """
tick:   inc dword ptr [ticks]
        EOI
        iretd
"""


def kernel(body: str) -> Image:
    """An image that runs ``body`` at ring 0 with tables loaded, IRQ 0 unmasked at vector 0x20, and IF clear."""
    return assemble_text(PRELUDE + body + POSTLUDE)


def booted(engine: str, body: str, **options: object) -> Machine:
    """A small machine with such a kernel loaded."""
    machine = Machine(RAM, engine=engine, **options)  # type: ignore[arg-type]
    machine.load(kernel(body))
    return machine


def word(machine: Machine, name: str) -> int:
    """The doubleword at a symbol of the kernel."""
    (image,) = machine.images.values()
    at = image.symbols[name]
    return int.from_bytes(machine.ram.view[at : at + 4], "little")
