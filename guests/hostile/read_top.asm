; reads each page of the topmost MiB, where a hypervisor could have put itself: every read must fault

.include "common/setup32.asm"

attack:
    call start_paging
    xor ebp, ebp

    mov edx, 0xfff00000
again:
    RESUME skip
    mov eax, [edx]
    inc ebp
skip:
    add edx, 0x1000
    jnz again
    mov eax, ebp
    out 0xe9, al
    END 1
