; gates of every type and with every selector in the IDT, and an INT through each

.include "common/setup32.asm"

attack:
    mov dword ptr [place], 0
again:
    mov eax, [place]
    mov ecx, eax
    and eax, 0x1f
    shl eax, 8
    or eax, 0x8000e000 & 0xe000
    mov ebx, [IDT + 0x55 * 8 + 4]
    and ebx, 0xffff0000
    or ebx, eax
    mov [IDT + 0x55 * 8 + 4], ebx
    mov ebx, ecx
    shr ebx, 5
    shl ebx, 19
    mov eax, [IDT + 0x55 * 8]
    and eax, 0xffff
    or eax, ebx
    mov [IDT + 0x55 * 8], eax
    RESUME next
    cmp byte ptr [place], 0x05             ; task gates aside
    je next
    int 0x55
next:
    inc dword ptr [place]
    cmp dword ptr [place], 0xc0
    jb again
    END 13
place: .long 0
