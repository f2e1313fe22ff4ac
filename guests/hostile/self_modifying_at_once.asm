; code that writes the privileged instruction right behind the one that writes it, with no jump in between

.include "common/setup32.asm"

attack:
    RESUME over
    mov byte ptr [patch], 0xfb
    mov byte ptr [patch + 1], 0xfa
patch:
    nop
    nop
    mov word ptr [patch2 + 1], 0xd820
    mov byte ptr [patch2], 0x0f
patch2:
    nop                             ; MOV EAX, CR3
    nop
    nop
    mov byte ptr [patch3 + 1], 0x0b
    mov byte ptr [patch3], 0x0f
patch3:
    nop                             ; UD2
    nop
over:
    END 11
