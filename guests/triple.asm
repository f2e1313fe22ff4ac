; divides by zero without an IDT: a triple fault, the end of the machine
;
; The divide error finds no gate, for the IDT is empty. That is a second fault, a double fault: no gate for it either.
; A processor that faults while it enters the double fault handler shuts down.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"

start:
    lidt [no_idt]
    xor edx, edx
    xor ecx, ecx
    mov eax, 1
last_words:
    div ecx
stop:                               ; never
    jmp stop

.align 4
no_idt:
    .word 0
    .long 0
image_end:
