; an IDT on the topmost pages: whatever is there is no table of this kernel's

.include "common/setup32.asm"

attack:
    call start_paging
    mov eax, 0xffff0000
again:
    mov [pointer + 2], eax
    lidt [pointer]
    add eax, 0x1000
    cmp eax, 0xfffff000
    jb again
    int3
.align 8
pointer:
    .word 0xfff
    .long 0
