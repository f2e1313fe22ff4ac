; a GDT on the topmost pages, and loads of segments from it

.include "common/setup32.asm"

attack:
    call start_paging
    RESUME over
    lgdt [pointer]
    mov eax, 0x10
    mov ds, eax
    mov eax, 0xff8
    mov es, eax
over:
    END 3
.align 8
pointer:
    .word 0xffff
    .long 0xffff0000
