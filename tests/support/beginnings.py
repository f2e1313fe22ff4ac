"""How kernels of 32 bits begin in tests: segments, interrupt controllers, the timer. In assembly, to be put together."""

from __future__ import annotations

FLAT = """
    lgdt [gdtr]
    lidt [idtr]
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    jmp 0x08:reloaded
reloaded:
"""
"""Segments from 0 to 4 GiB by the tables that the kernel has."""
PICS_AT_40 = """
    mov al, 0x11
    out 0x20, al
    mov al, 0x40
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
"""
"""The first interrupt controller's lines are vectors from 0x40 on; which of them are masked is for the kernel to say."""
TICKS = """
    mov al, 0x34
    out 0x43, al
    mov al, {ticks}
    out 0x40, al
    mov al, 0
    out 0x40, al
"""
"""The timer's period, below 256 of its ticks."""
