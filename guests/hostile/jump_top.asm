; jumps, calls and returns to each of the topmost pages: every fetch must fault

.include "common/setup32.asm"

attack:
    call start_paging
    xor ebp, ebp

    mov edx, 0xfff00000
again:
    RESUME skip
    jmp edx
    inc ebp
skip:
    add edx, 0x1000
    jnz again
    mov eax, ebp
    out 0xe9, al
    END 1
