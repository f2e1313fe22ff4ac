; reads and writes every port from ring 3, with IOPL 0 and no I/O map, and a few of the host's by string instructions

.include "common/setup32.asm"

attack:
    mov dword ptr [place], 0
again:
    RESUME next
    RING3 program
next:
    add dword ptr [place], 0x101
    cmp dword ptr [place], 0x10000
    jb again
    END 17
program:
    mov edx, [place]
    mov esi, SCRATCH
    test dl, 1
    jz 1f
    outsb
    ud2
1:
    in eax, dx
    ud2
place: .long 0
