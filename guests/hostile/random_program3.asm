; random bytes as code of ring 3, seed 3: 512 places to start at

.include "common/setup32.asm"

attack:
    call start_paging
    mov edi, 0x130000
    mov eax, 23757
    mov ecx, 0x1000
1:
    imul eax, eax, 1103515245
    add eax, 12345
    mov ebx, eax
    shr ebx, 16
    mov [edi], bx
    add edi, 2
    loop 1b
    mov dword ptr [place], 0x130000
again:
    RESUME next
    RING3 program
next:
    add dword ptr [place], 16
    cmp dword ptr [place], 0x132000
    jb again
    END 16
program:
    mov eax, 0x1c0000
    mov ebx, eax
    mov ecx, 3
    mov edx, eax
    mov esi, eax
    mov edi, eax
    mov ebp, eax
    jmp [place]
place: .long 0
