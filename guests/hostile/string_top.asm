; REP MOVSD from the topmost pages into its own memory, and the other way: no byte arrives

.include "common/setup32.asm"

attack:
    call start_paging
    RESUME second
    mov esi, 0xffff8000
    mov edi, SCRATCH
    mov ecx, 0x400
    rep movsd
second:
    RESUME third
    mov esi, SCRATCH
    mov edi, 0xffff8000
    mov ecx, 0x400
    rep movsd
third:
    mov eax, [SCRATCH]
    or eax, [SCRATCH + 0xffc]
    out 0xe9, al
    END 1
