; an INT of ring 3, with a TSS that puts the stack of ring 0 on the topmost pages: the end

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [tss + 4], 0xffffc000
    RING3 program
program:
    int 0x80
