; loops for ever with interrupts off: only a limit ends it

.origin 0x100000
.entry start

.include "guest/multiboot.asm"

start:
    cli
forever:
    jmp forever
image_end:
