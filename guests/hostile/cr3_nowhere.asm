; CR3 points to where there is no memory

.include "common/setup32.asm"

attack:
    call start_paging
    mov eax, 0x7ff00000
    mov cr3, eax
    nop
    nop
    END 8
