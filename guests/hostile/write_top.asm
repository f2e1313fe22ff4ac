; writes each page of the topmost MiB from ring 0: every store must fault

.include "common/setup32.asm"

attack:
    call start_paging
    xor ebp, ebp

    mov edx, 0xfff00000
again:
    RESUME skip
    mov dword ptr [edx + 0x800], 0x90909090
    inc ebp
skip:
    add edx, 0x1000
    jnz again
    mov eax, ebp
    out 0xe9, al
    END 1
