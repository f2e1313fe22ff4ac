; code that writes the privileged instruction it is about to jump to, byte by byte

.include "common/setup32.asm"

attack:
    RESUME over
    mov byte ptr [patch], 0xfb
    mov byte ptr [patch + 1], 0xfa
    jmp patch
patch:
    nop
    nop
    mov word ptr [patch2 + 1], 0xd820
    mov byte ptr [patch2], 0x0f
    jmp patch2
patch2:
    nop                             ; MOV EAX, CR3
    nop
    nop
    mov byte ptr [patch3 + 1], 0x0b
    mov byte ptr [patch3], 0x0f
    jmp patch3
patch3:
    nop                             ; UD2
    nop
over:
    END 11
