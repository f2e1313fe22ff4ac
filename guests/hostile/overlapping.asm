; privileged instructions that hide in the immediates of others, reached by jumps into their middle

.include "common/setup32.asm"

attack:
    RESUME over
    mov ecx, 3
again:
    jmp 2f
1:
    mov eax, 0x90fa9cfb
    jmp 3f
2:
    jmp 1b + 1
3:
    dec ecx
    jnz again
    jmp 4f + 2                      ; SMSW EAX, and what follows it
4:
    mov eax, 0xe0010f90
over:
    out 0xe9, al
    END 12
