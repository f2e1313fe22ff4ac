; exceptions in the delivery of exceptions: #PF whose stack isn't there, then #DF whose gate is none

.include "common/setup32.asm"

attack:
    call start_paging
    mov dword ptr [tss + 4], 0x60000000
    RING3 program
program:
    mov eax, [0x50000000]
    int 0x99
