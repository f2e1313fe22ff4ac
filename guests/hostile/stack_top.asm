; puts its stack where a hypervisor could be, and pushes, calls, and takes an interrupt at ring 0 there

.include "common/setup32.asm"

attack:
    call start_paging
    RESUME 0
    mov esp, 0xfffff000
    push 0x41414141
    END 9
