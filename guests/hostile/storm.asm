; maps and unmaps the page where the region has just gone, page by page down from the top, 400 times

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [DIRECTORY + 0xffc], 0x1a2007
    mov edi, 0x1a2000
    mov ecx, 1024
    xor eax, eax
    rep stosd
    mov ecx, 400
    mov edi, 0x1a2ff8
1:
    mov dword ptr [edi], 0x1c0007
    mov eax, edi
    sub eax, 0x1a2000
    shl eax, 10
    add eax, 0xffc00000
    mov [eax], ecx
    mov dword ptr [edi], 0
    invlpg [eax]
    sub edi, 4
    loop 1b
    mov al, [SCRATCH]
    out 0xe9, al
    END 20
