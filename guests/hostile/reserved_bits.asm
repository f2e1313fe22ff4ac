; PAE tables with reserved bits set on every level, each of them touched

.include "common/setup32.asm"

attack:
    mov dword ptr [0x1a8000], 0x1a9001
    mov dword ptr [0x1a9000], 0x83
    mov dword ptr [0x1a9008], 0x83
    mov dword ptr [0x1a900c], 0x00100000
    mov eax, 0x1a8000
    mov cr3, eax
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x80010011
    mov cr0, eax
    RESUME over
    mov eax, [0x200000]
over:
    RESUME 0
    mov dword ptr [0x1a8004], 0xffffff00
    mov eax, 0x1a8000
    mov cr3, eax
    END 10
