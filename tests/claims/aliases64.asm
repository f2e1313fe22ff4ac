; aliases.asm's counterpart of 64 bits: a guest that reaches its page table by ways of its own: other linear addresses
; for the same table, one of them in the upper half, code of 64, 32 and 16 bits, every kind of storing instruction, and
; a store that begins in one page and ends in another that lies elsewhere
;
; Each store maps a frame that begins with its own address; the page is then read, and what was read is kept.

.origin 0xa000                          ; in reach of 16-bit code
.entry start

CODE32 = 0x18
CODE16 = 0x20
FRAMES = 0x00200000
WINDOW = 0x40000000                     ; what the table maps
ALIAS  = 0x50000000                     ; its other address, whose neighbour is its neighbour's other neighbour ...
HIGH   = 0xffff800000000000             ; ... and its third
BITS   = 3
FRAME  = FRAMES + BITS

.macro seen number                      ; what is at the window's page `number`
    mov eax, dword ptr [WINDOW + (\number) * 4096]
    mov dword ptr [results + (\number) * 4], eax
.endm

start:
    cli
    cld
    mov esp, stack_top
    mov eax, FRAMES
    mov ecx, 64
.frame:
    mov dword ptr [eax], eax
    add eax, 0x1000
    loop .frame
    mov eax, pml4
    jmp enter_long_mode

.include "enter64.asm"

long:
    mov rbx, HIGH
    jmp paging
paging:

; 64-bit code; stores of 8, 4, 2 and 1 bytes, where the table lies and through its aliases.
    mov qword ptr [table + 0 * 8], FRAME
    seen 0
    mov qword ptr [ALIAS + 1 * 8], FRAME + 0x1000
    seen 1
    mov dword ptr [rbx + 2 * 8], FRAME + 0x2000
    seen 2
    mov eax, FRAME + 0x3000
    mov byte ptr [rbx + 3 * 8 + 1], ah
    mov word ptr [table + 3 * 8 + 2], FRAMES >> 16
    mov byte ptr [ALIAS + 3 * 8], al
    seen 3

; 32-bit code of compatibility mode, then 16-bit code: operands of 16 bits by themselves, of 32 bits by a prefix;
; addresses of 16 bits, and of 32 by a prefix.
    jmp fword ptr [to_32_bits]
.code32
in_32_bits:
    mov dword ptr [ALIAS + 4 * 8], FRAME + 0x4000
    jmp CODE16:in_16_bits
.code16
in_16_bits:
    mov ax, (FRAMES + 0x5000) >> 16
    mov word ptr [table + 5 * 8 + 2], ax
    mov ax, ((FRAMES + 0x5000) & 0xffff) + BITS
    mov word ptr [table + 5 * 8], ax
    mov ebx, ALIAS
    mov eax, FRAME + 0x6000
    mov dword ptr [ebx + 6 * 8], eax
    mov di, table + 7 * 8
    mov eax, FRAME + 0x7000
    stosd
    jmp CODE64:in_64_bits
.code64
in_64_bits:
    mov rsp, stack_top
    seen 4
    seen 5
    seen 6
    seen 7

; Every kind of store.
    mov rbx, HIGH
    mov rsp, HIGH + 9 * 8
    push FRAME + 0x8000
    mov rsp, stack_top
    seen 8
    mov eax, FRAME + 0x9000
    xchg [rbx + 9 * 8], rax
    seen 9
    xor eax, eax
    mov ecx, FRAME + 0xa000
    lock cmpxchg [rbx + 10 * 8], rcx
    seen 10
    mov qword ptr [rbx + 11 * 8], FRAME + 0xb000 - 1        ; not present yet
    lock bts qword ptr [rbx + 11 * 8], 0
    seen 11
    lock add qword ptr [ALIAS + 12 * 8], FRAME + 0xc000
    seen 12
    mov eax, FRAME + 0xd000
    lock xadd [rbx + 13 * 8], rax
    seen 13
    movups xmm0, [two_entries]
    movups [rbx + 14 * 8], xmm0
    seen 14
    seen 15
    xor eax, eax
    xor edx, edx
    mov ebx, FRAME + 0x10000
    mov ecx, FRAME + 0x11000
    lock cmpxchg16b [ALIAS + 16 * 8]
    seen 16
    seen 17
    mov rdi, HIGH + 18 * 8
    mov eax, FRAME + 0x12000
    mov ecx, 2
    rep stosq
    seen 18
    seen 19
    mov rsi, more_entries
    mov rdi, ALIAS + 20 * 8
    mov ecx, 2
    rep movsq
    seen 20
    seen 21

; Across the end of the table into the table that lies behind it by the alias, but not in memory: the upper six bytes of
; entry 511 and the lower two of entry 512.
    mov qword ptr [table + 511 * 8], FRAME
    mov qword ptr [other_table], FRAME + 0x20000
    mov rax, [WINDOW + 511 * 4096]
    mov rax, [WINDOW + 512 * 4096]
    mov rbx, HIGH
    mov rax, ((FRAMES + 0x10000) >> 16) + ((0x1000 + BITS) << 48)
crossing:
    mov [rbx + 511 * 8 + 2], rax
    invlpg [WINDOW + 511 * 4096]
    invlpg [WINDOW + 512 * 4096]
    mov eax, dword ptr [WINDOW + 511 * 4096]
    mov dword ptr [results + 22 * 4], eax
    mov eax, dword ptr [WINDOW + 512 * 4096]
    mov dword ptr [results + 23 * 4], eax

; What is no table any more is nobody's business: the page is unhooked, then written to. One page in it has been used.
    mov qword ptr [other_table + 5 * 8], FRAME + 0x5000
    mov rax, [WINDOW + 517 * 4096]
    mov qword ptr [window_directory + 8], 0
    mov qword ptr [alias_table + 8], 0
    invlpg [WINDOW + 512 * 4096]
unhooked:
    mov qword ptr [other_table + 8], FRAME
    mov dword ptr [finished], 1
stop:
    cli
    hlt
    jmp stop

.align 8
to_32_bits: .long in_32_bits, CODE32
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            ; 64-bit code
    .quad 0x00cf93000000ffff            ; data
    .quad 0x00cf9b000000ffff            ; 32-bit code
    .quad 0x00009b000000ffff            ; 16-bit code
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt
.align 16
two_entries:  .quad FRAME + 0xe000, FRAME + 0xf000
more_entries: .quad FRAME + 0x14000, FRAME + 0x15000

.align 4096                             ; the table first: below 64 KiB
table:       .space 4096
alias_table:                            ; between the two in memory
    .quad table + BITS + NX, other_table + BITS + NX
    .space 510 * 8
other_table: .space 4096
pml4:
    .quad low_pdpt + BITS
    .space 255 * 8
    .quad high_pdpt + BITS
    .space 255 * 8
low_pdpt:
    .quad low_directory + BITS
    .quad window_directory + BITS
    .space 510 * 8
low_directory:                          ; 4 MiB one to one
    .quad BITS + LARGE, 0x200000 + BITS + LARGE
    .space 510 * 8
window_directory:
    .quad table + BITS, other_table + BITS
    .space 126 * 8
    .quad alias_table + BITS            ; ALIAS
    .space 383 * 8
high_pdpt:
    .quad high_directory + BITS
    .space 511 * 8
high_directory:
    .quad alias_table + BITS            ; HIGH
    .space 511 * 8
results:     .space 96
finished:    .long 0
.align 4096
    .space 4096
stack_top:
