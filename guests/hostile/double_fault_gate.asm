; a #GP whose gate isn't present, then #NP whose gate isn't either; #DF has one and ends it

.include "common/setup32.asm"

attack:
    mov dword ptr [IDT + 13 * 8 + 4], 0
    mov dword ptr [IDT + 11 * 8 + 4], 0
    mov eax, 0x7ff8
    mov ds, eax
    END 99
