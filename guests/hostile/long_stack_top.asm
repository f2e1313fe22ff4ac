; 64 bits: RSP on the topmost pages, and an interrupt: the processor shuts down

.include "common/setup64.asm"

attack:
    mov rsp, -0x1000
    int3
    END 3
