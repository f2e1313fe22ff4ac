; page tables that map themselves, as directory, table and page, written through every alias

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [DIRECTORY + 0xffc], DIRECTORY + 7
    mov eax, [0xfffff000]
    mov dword ptr [0xfffffff8], TABLE + 7
    mov dword ptr [0xffc00000], 0x1c0007
    mov eax, cr3
    mov cr3, eax
    mov dword ptr [0xffbff000], 0x55
    mov al, [SCRATCH]
    out 0xe9, al
    mov dword ptr [0xfffff000], 0
    mov cr3, eax
    mov eax, [0x1000]
    END 7
