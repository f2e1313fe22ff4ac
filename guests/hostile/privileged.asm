; each privileged instruction from ring 3

.include "common/setup32.asm"

attack:
    mov dword ptr [place], codes
again:
    RESUME next
    RING3 program
next:
    add dword ptr [place], 8
    cmp dword ptr [place], codes_end
    jb again
    END 18
program:
    mov eax, SCRATCH
    xor ecx, ecx
    jmp [place]
.align 8
place: .long 0, 0
codes:
    hlt
    .align 8
    cli
    .align 8
    sti
    .align 8
    mov cr0, eax
    .align 8
    mov cr3, eax
    .align 8
    mov eax, cr3
    .align 8
    mov dr7, eax
    .align 8
    lgdt [eax]
    .align 8
    lidt [eax]
    .align 8
    lldt ax
    .align 8
    ltr ax
    .align 8
    lmsw ax
    .align 8
    clts
    .align 8
    invd
    .align 8
    wbinvd
    .align 8
    invlpg [eax]
    .align 8
    rdmsr
    .align 8
    wrmsr
    .align 8
codes_end:
