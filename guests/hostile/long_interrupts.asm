; 64 bits: all 256 INT n from ring 3

.include "common/setup64.asm"

attack:
    mov dword ptr [number], 0
again:
    RESUME next
    mov al, [number]
    mov [code + 1], al
    RING3 code
next:
    inc dword ptr [number]
    cmp dword ptr [number], 256
    jb again
    END 6
code:
    int 0
    ud2
.align 8
number: .quad 0
