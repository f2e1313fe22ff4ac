; 64 bits: FS and GS bases, SWAPGS and system-call MSRs that point to the topmost pages, from ring 0

.include "common/setup64.asm"

attack:
    mov ecx, 0xc0000101
    mov eax, 0xffff9000
    mov edx, 0xffffffff
    wrmsr
    RESUME next
    mov rax, gs:[0x100]
next:
    RESUME second
    mov ecx, 0xc0000101
    mov edx, 0x12345678
    wrmsr
second:
    RESUME third
    swapgs
    mov rax, gs:[0]
    swapgs
    mov ecx, 0xc0000100
    mov eax, 0xffffa000
    mov edx, 0xffffffff
    wrmsr
    mov dword ptr fs:[0x40], 0xf4f4f4f4
third:
    END 4
