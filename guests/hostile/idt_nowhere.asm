; an IDT in the middle of nothing, and then an exception: the processor shuts down

.include "common/setup32.asm"

attack:
    call start_paging
    lidt [nowhere]
    ud2
.align 8
nowhere:
    .word 0x7ff
    .long 0x70000000
