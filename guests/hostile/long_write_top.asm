; 64 bits: stores from ring 3 to the topmost 64 pages: every one must fault

.include "common/setup64.asm"

attack:
    mov rax, -0x40000
    mov [place], rax
again:
    RESUME next
    RING3 program
next:
    mov rdx, [place]
    add rdx, 0x1000
    mov [place], rdx
    test rdx, rdx
    jnz again
    END 2
program:
    mov rdx, [place]
    mov qword ptr [rdx], -1
    int 0x99
.align 8
place: .quad 0
