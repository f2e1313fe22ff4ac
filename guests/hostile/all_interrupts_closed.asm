; all 256 INT n from ring 3 through gates that are closed to it: a #GP each, with the right error code

.include "common/setup32.asm"

attack:
    mov edi, IDT
    mov ecx, 256
1:
    mov byte ptr [edi + 5], 0x8e
    add edi, 8
    loop 1b
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
    END 15
code:
    int 0
    ud2
number: .long 0
