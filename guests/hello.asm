; prints one line on the serial port and halts
;
; The smallest kernel that says something. It needs no stack, no tables, no memory but its own few bytes.

.origin 0x100000
.entry start

.equ COM1, 0x3f8
.equ COM1_STATUS, COM1 + 5
.equ TRANSMITTER_EMPTY, 0x20

.include "guest/multiboot.asm"

start:
    mov esi, text
next:
    mov dx, COM1_STATUS
not_ready:
    in al, dx
    test al, TRANSMITTER_EMPTY
    jz not_ready
    lodsb
    test al, al
    jz done
    mov dx, COM1
    out dx, al
    jmp next
done:
    cli                             ; nothing can wake it from a halt without interrupts: this is the end
    hlt
    jmp done

text: .asciz "hello: here I am\n"
image_end:
