; 64 bits: jumps, returns and tables beyond what is canonical

.include "common/setup64.asm"

attack:
    RESUME next
    mov rax, 0x0000800000000000
    jmp rax
next:
    RESUME second
    mov rax, 0x8000000000000000
    push rax
    ret
second:
    RESUME third
    mov rax, 0x1234567812345678
    mov rbx, [rax]
third:
    END 5
