"""A guest that logs what arrives at its handlers, on a machine whose host knows nothing of it."""

from __future__ import annotations

from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.stay import Stay
from hvproto.testing import lodging
from hvproto.testing.lodging import DISK, HOST_MEMORY, MEMORY, POOL_PAGES

__all__ = ["DISK", "HOST_MEMORY", "MEMORY", "POOL_PAGES", "Lodging", "logging_kernel"]

KERNEL = """
.origin 0x100000
.entry start
.macro GATE number, target
        .long 0x00080000 | (\\target & 0xffff)
        .long (\\target & 0xffff0000) | 0xee00
.endm
start:  cli
        mov esp, 0x180000
        lgdt [gdt_pointer]
        jmp 0x08:loaded
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
idt_pointer:
        .word 0x7ff
        .long idt
loaded: mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        lidt [idt_pointer]
        xor eax, eax
"""
TABLES = """
finish: cli
        hlt
with_code:                          ; log vector, error code and EIP, and go on at [resume]
        xchg eax, [esp]
        mov edi, [log_end]
        stosd
        pop eax
        pop eax
        stosd
        jmp log_eip
without_code:
        xchg eax, [esp]
        mov edi, [log_end]
        stosd
        pop eax
        xor eax, eax
        stosd
log_eip:
        mov eax, [esp]
        stosd
        mov [log_end], edi
        mov eax, [resume]
        test eax, eax
        jz 1f
        mov [esp], eax
1:      iretd
h0:     push 0
        jmp without_code
h6:     push 6
        jmp without_code
h13:    push 13
        jmp with_code
h14:    push 14
        jmp with_code
h3:     push 3
        jmp without_code
h48:    push 48
        jmp without_code
.align 8
resume: .long 0
log_end: .long log
log:    .space 240
result: .long 0
idt:    GATE 0, h0
        .space 16
        GATE 3, h3
        .space 16
        GATE 6, h6
        .space 48
        GATE 13, h13
        GATE 14, h14
        .space 33 * 8
        GATE 48, h48
        .space 0x800 - 49 * 8
"""


def logging_kernel(body: str) -> str:
    """A kernel whose handlers of vectors 0, 3, 6, 13, 14 and 48 log what arrives, and go on at [resume] if that is set."""
    return KERNEL + body + TABLES


class Lodging(lodging.Lodging):
    """One whose guest is a `logging_kernel`."""

    def run_to_end(self) -> Stay:
        stay = self.run()
        assert stay.leave in (Leave.HALTED, Leave.FAILED), stay
        return stay

    @property
    def log(self) -> list[tuple[int, int, int]]:
        """What the guest's handlers have logged: vector, error code, EIP."""
        end = (self.words("log_end")[0] - self.image.symbols["log"]) // 4
        words = self.words("log", end)
        return [(words[at], words[at + 1], words[at + 2]) for at in range(0, end, 3)]
