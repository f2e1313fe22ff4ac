; a kernel at ring 0 that loads data segments with an RPL they are closed to, by every instruction that loads one

.include "common/setup32.asm"

.equ CONFORMING, 0x30
.equ EXECUTE_ONLY, 0x38
.equ MISSING, 0x40

.macro LOAD number, selector        ; it prints its number if the load went well, else the vector
    RESUME 9f
    mov edx, \selector
    mov ds, edx
    mov ecx, DATA0
    mov ds, ecx
    mov al, \number + 0x60
    out 0xe9, al
9:
.endm

.macro STEP number
    mov ecx, DATA0
    mov ds, ecx
    mov es, ecx
    mov al, \number + 0x60
    out 0xe9, al
.endm

attack:
    mov dword ptr [gdt + CONFORMING], 0x0000ffff
    mov dword ptr [gdt + CONFORMING + 4], 0x00cf9f00
    mov dword ptr [gdt + EXECUTE_ONLY], 0x0000ffff
    mov dword ptr [gdt + EXECUTE_ONLY + 4], 0x00cf9900
    mov dword ptr [gdt + MISSING], 0x0000ffff
    mov dword ptr [gdt + MISSING + 4], 0x00cf1300
    LOAD 1, DATA0
    LOAD 2, DATA0 + 1
    LOAD 3, DATA0 + 3
    LOAD 4, DATA3
    LOAD 5, DATA3 - 3
    LOAD 6, CODE0
    LOAD 7, CODE0 + 2
    LOAD 8, CONFORMING + 3
    LOAD 9, EXECUTE_ONLY
    LOAD 10, MISSING
    LOAD 11, MISSING + 1
    LOAD 12, 0x7f8
    LOAD 13, 4
    RESUME three
    xor edx, edx                    ; nothing to load, at whatever level it is asked for
    mov dl, 3
    mov es, edx
    STEP 14
three:
    RESUME four
    push DATA0 + 2
    stc
    pop es
    STEP 15
four:
    RESUME five
    push DATA3
    pop ds
    STEP 16
five:
    RESUME six
    push DATA0 + 3
    pop gs
    STEP 17
six:
    RESUME seven
    mov dword ptr [SCRATCH], 0x1234
    mov dword ptr [SCRATCH + 4], DATA0 + 3
    lgs eax, [SCRATCH]
    STEP 18
seven:
    RESUME eight
    mov fs, word ptr [SCRATCH + 4]
    STEP 19
eight:
    mov word ptr [SCRATCH + 4], DATA3
    lfs eax, [SCRATCH]
    STEP 20
    END 1
