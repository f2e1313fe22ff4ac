; executes its own page table, and then changes an entry of it by walking there

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [TABLE + 0x7f8], 0x90909090
    mov dword ptr [TABLE + 0x7fc], 0xc3909090
    mov eax, TABLE + 0x7f8
    call eax
    mov eax, [0xc0 << 12]
    mov byte ptr [TABLE + 0x7f8], 0xfa
    mov eax, TABLE + 0x7f8
    call eax
    END 6
