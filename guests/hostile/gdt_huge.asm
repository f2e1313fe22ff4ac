; a GDT of 64 KiB whose every descriptor is a code segment of ring 0: also at a hypervisor's own selectors

.include "common/setup32.asm"

attack:
    mov edi, 0x150000
    mov ecx, 0x2000
1:
    mov dword ptr [edi], 0x0000ffff
    mov dword ptr [edi + 4], 0x00cf9b00
    add edi, 8
    loop 1b
    mov dword ptr [0x150014], 0x00cf9300
    lgdt [pointer]
    jmp 0xff8:2f
2:
    jmp 0xfe0:3f
3:
    mov eax, 0x10
    mov ds, eax
    jmp 0x08:4f
4:
    mov eax, 0xff0
    mov gs, eax
    mov eax, gs:[resume]
    END 4
.align 8
pointer:
    .word 0xffff
    .long 0x150000
