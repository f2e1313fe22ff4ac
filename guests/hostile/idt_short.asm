; an IDT that ends in the middle of the gate that is needed, and of #GP's, and of #DF's

.include "common/setup32.asm"

attack:
    lidt [short]
    ud2
.align 8
short:
    .word 6 * 8 + 3
    .long IDT
