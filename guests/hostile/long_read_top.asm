; 64 bits: reads the topmost pages, and those at the ends of both halves: every read must fault

.include "common/setup64.asm"

attack:
    mov dword ptr [count], 0
    mov edx, places
again:
    mov [place], rdx
    RESUME next
    mov rax, [rdx]
    mov rax, [rax]
    inc dword ptr [count]
next:
    mov rdx, [place]
    add rdx, 8
    cmp rdx, offset places_end
    jb again
    mov eax, [count]
    out 0xe9, al
    END 1
.align 8
place: .quad 0
count: .quad 0
places:
    .quad 0xfffffffffffff000, 0xffffffffffffe000, 0xffffffffffffa000, 0xffffffffffff9000, 0xffffffffffff8000
    .quad 0xffff800000000000, 0x00007fffffffe000, 0x00007ffffffff000, 0x0000800000000000, 0xffff7fffffffffff
    .quad 0x8000000000, 0x10000000000, 0xffffff8000000000
places_end:
