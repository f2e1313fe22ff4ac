; locked and read-modify-write stores to the topmost pages, which must not even be half done

.include "common/setup32.asm"

attack:
    call start_paging
    xor ebp, ebp

    mov edx, 0xfff00000
again:
    RESUME skip
    lock xadd [edx + 0xffc], edx
    inc ebp
skip:
    add edx, 0x1000
    jnz again
    mov eax, ebp
    out 0xe9, al
    END 1
