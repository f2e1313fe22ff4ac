; 64 bits: turns PAE, LME and paging off in every wrong order

.include "common/setup64.asm"

attack:
    RESUME next
    mov rax, cr4
    and eax, ~0x20
    mov cr4, rax
next:
    RESUME second
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x100
    wrmsr
second:
    RESUME third
    mov rax, cr0
    mov ecx, eax
    and ecx, 0x7fffffff
    mov cr0, rcx
third:
    RESUME fourth
    mov rax, cr0
    and eax, ~1
    mov cr0, rax
fourth:
    END 7
