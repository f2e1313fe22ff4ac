; From 32-bit protected mode to compatibility mode, with the first 16 MiB mapped one to one, open to ring 3 as well.
; (long.asm shows the same step by step.)

.code32
enter_long_mode:                    ; spoils EAX, ECX, EDX
    mov eax, cr4
    or eax, 0x20                    ; PAE
    mov cr4, eax
    mov eax, pml4
    mov cr3, eax
    mov ecx, 0xc0000080             ; EFER
    rdmsr
    or eax, 0x100                   ; LME
    wrmsr
    mov eax, cr0
    or eax, 0x80010000              ; PG and WP
    mov cr0, eax
    ret                             ; 32-bit code still, now in compatibility mode

.align 4096
pml4:
    .quad pdpt + 7
    .space 511 * 8
pdpt:
    .quad directory + 7
    .space 511 * 8
directory:
.rept 8
    .quad \+ * 0x200000 + 0x87
.endr
    .space 504 * 8
