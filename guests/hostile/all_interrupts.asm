; all 256 INT n from ring 0, and from ring 3 through gates that are open to it

.include "common/setup32.asm"

attack:
    mov edi, 0x130000               ; INT n; RET, 4 bytes each
    xor ecx, ecx
1:
    mov byte ptr [edi], 0xcd
    mov [edi + 1], cl
    mov word ptr [edi + 2], 0xc3
    add edi, 4
    inc ecx
    cmp ecx, 256
    jb 1b
    mov dword ptr [place], 0x130000
again:
    RESUME next
    mov eax, [place]
    call eax
next:
    add dword ptr [place], 4
    cmp dword ptr [place], 0x130400
    jb again
    mov dword ptr [place], 0x130000
more:
    RESUME another
    RING3 program
another:
    add dword ptr [place], 4
    cmp dword ptr [place], 0x130400
    jb more
    END 14
program:
    call [place]
    ud2
place: .long 0
