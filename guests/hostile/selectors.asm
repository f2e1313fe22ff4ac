; loads selectors of all kinds and of every privilege level, from ring 0 and from ring 3: also a hypervisor's

.include "common/setup32.asm"

attack:
    mov dword ptr [place], 0
again:
    RESUME next
    mov ax, [place]
    mov es, ax
    inc dword ptr [loaded]
next:
    add dword ptr [place], 7
    cmp dword ptr [place], 0x1100
    jb again
    mov dword ptr [place], 0
more:
    RESUME another
    RING3 program
another:
    add dword ptr [place], 0x21
    cmp dword ptr [place], 0x1100
    jb more
    mov al, [loaded]
    out 0xe9, al
    END 5
program:
    mov ax, [place]
    mov gs, ax
    int 0x99
place: .long 0
loaded: .long 0
