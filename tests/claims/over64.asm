; over.asm's counterpart of 64 bits: a guest that maps its pages where the hypervisor's region is: one, many by one
; instruction, 2 MiB by one store, one after the other, and 2 MiB after the other
;
; It knows of no region: it only writes through each new mapping, and looks for what it wrote in the memory behind it.
; The first page lies below 4 GiB, where 32-bit code could still reach; all others lie in the upper half.

.origin 0x100000
.entry start

FRAMES = 0x00400000                     ; 2 MiB of memory for what is mapped
FIRST  = 0xffe00000                     ; the last 2 MiB of addresses below 4 GiB ...
TOP    = 0xffffffffffe00000             ; ... the last of all ...
NEXT   = 0xffffffffffc00000             ; ... and those before them
MANY   = 64
SINGLES = 24
SLOTS  = 24
BITS = 3                                ; present, writable

start:
    cli
    cld
    mov esp, stack_top
    mov eax, pml4
    jmp enter_long_mode

.include "enter64.asm"

long:
    mov rdi, full_table                 ; a table for later
    mov rax, FRAMES + BITS + NX
    mov ecx, 512
.entry:
    stosq
    add rax, 0x1000
    dec ecx
    jnz .entry
    jmp paging
paging:

; A table that hangs in no directory is nobody's business.
elsewhere:
    mov qword ptr [unused_table + 510 * 8], FRAMES + BITS
    jmp elsewhere_done
elsewhere_done:

; One page, below 4 GiB.
    mov edi, FIRST + 510 * 4096
    mov edx, FRAMES + 510 * 4096
    mov rax, FRAMES + 510 * 4096 + BITS + NX
once:
    mov [first_table + 510 * 8], rax
    call compare
once_done:
    inc dword ptr [stage]

; Many, from the top of the upper half down, by one instruction.
    mov rsi, full_table + 511 * 8
    mov rdi, top_table + 511 * 8
    mov ecx, MANY
    std
many:
    rep movsq
    cld
    mov rdi, TOP + 511 * 4096
    mov edx, FRAMES + 511 * 4096
    mov ebx, MANY
.look:
    call compare
    sub rdi, 4096
    sub rdx, 4096
    dec ebx
    jnz .look
many_done:
    mov rax, cr3                        ; the entries will be written again: the processor has to forget them
    mov cr3, rax
    inc dword ptr [stage]

; The whole 2 MiB by one store to the directory, which has another table from then on.
whole:
    mov qword ptr [top_directory + 511 * 8], full_table + BITS
    mov rdi, TOP
    mov edx, FRAMES
.look:
    call compare
    add rdi, 4096 * 33
    add rdx, 4096 * 33
    cmp rdx, FRAMES + 512 * 4096
    jb .look
whole_done:
    inc dword ptr [stage]

; One page after the other, downwards, each used at once.
    mov ebp, 511
one_by_one:
    mov rdx, rbp
    shl rdx, 12
    lea rdi, [rdx + NEXT]
    add rdx, FRAMES
    lea rax, [rdx + BITS]
    bts rax, 63
    mov [next_table + rbp * 8], rax
    call compare
    dec ebp
    cmp ebp, 511 - SINGLES
    ja one_by_one
one_by_one_done:
    inc dword ptr [stage]

; Pages of 2 MiB, all of the same memory; the first takes the place of the table of those single pages.
    mov ebp, 510
    mov rdi, NEXT
slots:
    mov rax, FRAMES + BITS + LARGE + NX
    mov [top_directory + rbp * 8], rax
    mov edx, FRAMES
    call compare
    sub rdi, 0x200000
    dec ebp
    cmp ebp, 510 - SLOTS
    ja slots
slots_done:
    inc dword ptr [stage]

; And a page goes away again: nothing in that for anybody.
    mov qword ptr [first_table + 510 * 8], 0
    mov edi, FIRST + 510 * 4096
    invlpg [rdi]
    inc dword ptr [stage]
stop:
    cli
    hlt
    jmp stop

compare:                                ; written at RDI, seen at RDX, and the other way round
    mov [rdi], rdi
    cmp [rdx], rdi
    jne .wrong
    not rdi
    mov [rdx], rdi
    not rdi
    mov rax, [rdi]
    not rax
    cmp rax, rdi
    jne .wrong
    inc dword ptr [right]
    ret
.wrong:
    inc dword ptr [wrong]
    ret

.align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            ; 64-bit code
    .quad 0x00cf93000000ffff            ; data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt

.align 4096
stage: .long 0                          ; how far we have come
right: .long 0
wrong: .long 0
.align 4096
pml4:
    .quad low_pdpt + BITS
    .space 510 * 8
    .quad high_pdpt + BITS
low_pdpt:
    .quad low_directory + BITS, 0, 0
    .quad first_directory + BITS
    .space 508 * 8
low_directory:                          ; 8 MiB one to one
.rept 4
    .quad \+ * 0x200000 + BITS + LARGE
.endr
    .space 508 * 8
first_directory:
    .space 511 * 8
    .quad first_table + BITS
high_pdpt:
    .space 511 * 8
    .quad top_directory + BITS
top_directory:
    .space 510 * 8
    .quad next_table + BITS
    .quad top_table + BITS
first_table:  .space 4096
top_table:    .space 4096
next_table:   .space 4096
full_table:   .space 4096
unused_table: .space 4096
    .space 4096
stack_top:
