; a task state segment whose code and stack lie nowhere, entered by a jump: the new task dies at once

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [gdt + 0x30], 0x00000067
    mov dword ptr [gdt + 0x34], 0x00008900
    mov eax, SCRATCH
    mov [gdt + 0x32], ax
    shr eax, 16
    mov [gdt + 0x34], al
    mov dword ptr [SCRATCH + 0x1c], DIRECTORY
    mov dword ptr [SCRATCH + 0x20], 0x12345678
    mov dword ptr [SCRATCH + 0x4c], CODE0
    mov dword ptr [SCRATCH + 0x50], DATA0
    jmp 0x30:0
    END 19
