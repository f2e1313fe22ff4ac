; a hardware task switch to a page directory where there is no memory

.include "common/setup32.asm"

.equ OTHER_TASK, 0x30
.equ OTHER_TSS, 0x1c1000

attack:
    call start_paging
    mov dword ptr [gdt + OTHER_TASK], (OTHER_TSS & 0xffff) << 16 | 0x67
    mov dword ptr [gdt + OTHER_TASK + 4], 0x00008900 | OTHER_TSS >> 16
    mov dword ptr [OTHER_TSS + 0x1c], 0x7ff00000
    mov dword ptr [OTHER_TSS + 0x20], offset there
    mov dword ptr [OTHER_TSS + 0x24], 2
    mov dword ptr [OTHER_TSS + 0x38], KERNEL_STACK
    mov dword ptr [OTHER_TSS + 0x48], DATA0
    mov dword ptr [OTHER_TSS + 0x4c], CODE0
    mov dword ptr [OTHER_TSS + 0x50], DATA0
    mov dword ptr [OTHER_TSS + 0x54], DATA0
    jmp OTHER_TASK:0
there:
    END 8
