; writes each page of the topmost MiB from ring 3: every store must fault

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [place], 0xfff00000
again:
    RESUME skip
    RING3 program
skip:
    add dword ptr [place], 0x1000
    jnz again
    END 1
program:
    mov edx, [place]
    mov dword ptr [edx], 0xf4f4f4f4
    int 0x99
place: .long 0
