; CR3 points into code, text and random words, one page after the other, with paging off in between

.include "common/setup32.asm"

attack:
    mov dword ptr [place], 0x110000
    mov edi, 0x110000
    mov eax, 12345
    mov ecx, 0x2000
1:
    imul eax, eax, 1103515245
    add eax, 12345
    stosd
    loop 1b
    mov eax, [place]
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    nop
    END 9
place: .long 0
