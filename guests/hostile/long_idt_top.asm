; 64 bits: an IDT on the topmost pages, then an exception

.include "common/setup64.asm"

attack:
    lidt [pointer]
    ud2
.align 8
pointer:
    .word 0xfff
    .quad 0xffffffffffff9000
