; a guest that reaches its page table by ways of its own: other linear addresses for the same table, code of 16 bits,
; a store that begins in one page and ends in another that lies elsewhere
;
; Each store maps a frame that begins with its own address; the page is then read, and what was read is kept.

.origin 0xa000                          ; in reach of 16-bit code
.entry start

FRAMES = 0x00200000
WINDOW = 0x40000000                     ; what the table maps
ALIAS  = 0x50000000                     ; its other address ...
BEYOND = 0x50001000                     ; ... and behind it, of all pages, its neighbour's other neighbour
BITS   = 3

.macro seen number                      ; what is at the window's page `number`
    mov eax, dword ptr [WINDOW + (\number) * 4096]
    mov dword ptr [results + (\number) * 4], eax
.endm

start:
    cli
    cld
    mov esp, stack_top
    lgdt [gdt_pointer]
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    lidt [idt_pointer]
    mov eax, in_32_bits
    mov word ptr [idt + 0x30 * 8], ax
    shr eax, 16
    mov word ptr [idt + 0x30 * 8 + 6], ax
    mov edi, low_table
    mov eax, BITS
    mov ecx, 1024
.page:
    stosd
    add eax, 0x1000
    loop .page
    mov eax, FRAMES
    mov ecx, 64
.frame:
    mov dword ptr [eax], eax
    add eax, 0x1000
    loop .frame
    mov dword ptr [directory], low_table + BITS
    mov dword ptr [directory + (WINDOW >> 22) * 4], table + BITS
    mov dword ptr [directory + (WINDOW >> 22) * 4 + 4], other_table + BITS
    mov dword ptr [directory + (ALIAS >> 22) * 4], alias_table + BITS
    mov dword ptr [alias_table], table + BITS
    mov dword ptr [alias_table + 4], other_table + BITS
    mov eax, directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    jmp paging
paging:

; 32-bit code, 32-bit and 16-bit and 8-bit stores, where the table lies and through the alias.
    mov dword ptr [table + 0 * 4], FRAMES + BITS
    seen 0
    mov dword ptr [ALIAS + 1 * 4], FRAMES + 0x1000 + BITS
    seen 1
    mov word ptr [ALIAS + 2 * 4 + 2], (FRAMES + 0x2000) >> 16
    mov word ptr [ALIAS + 2 * 4], ((FRAMES + 0x2000) & 0xffff) + BITS
    seen 2
    mov eax, FRAMES + 0x3000 + BITS
    mov byte ptr [ALIAS + 3 * 4 + 1], ah
    mov word ptr [table + 3 * 4 + 2], FRAMES >> 16
    mov byte ptr [ALIAS + 3 * 4], al
    seen 3

; 16-bit code: operands of 16 bits by themselves, of 32 bits by a prefix; addresses of 16 bits, and of 32 by a prefix.
    jmp 0x18:in_16_bits
.code16
in_16_bits:
    mov ax, (FRAMES + 0x4000) >> 16
    mov word ptr [table + 4 * 4 + 2], ax
    mov ax, ((FRAMES + 0x4000) & 0xffff) + BITS
    mov word ptr [table + 4 * 4], ax
    mov eax, FRAMES + 0x5000 + BITS
    mov dword ptr [table + 5 * 4], eax
    mov ebx, ALIAS
    mov eax, FRAMES + 0x6000 + BITS
    mov dword ptr [ebx + 6 * 4], eax
    mov di, table + 7 * 4
    mov eax, FRAMES + 0x7000 + BITS
    stosd
    int 0x30                            ; through a gate into 32-bit code, never to return
.code32
in_32_bits:
    mov esp, stack_top
    seen 4
    seen 5
    seen 6
    seen 7

; Across the end of the table into the table that lies behind it by the alias, but not in memory: the upper half of
; entry 1023 and the lower half of entry 1024.
    mov dword ptr [table + 1023 * 4], FRAMES + BITS
    mov dword ptr [other_table], FRAMES + 0x20000 + BITS
    mov eax, dword ptr [WINDOW + 1023 * 4096]
    mov eax, dword ptr [WINDOW + 1024 * 4096]
crossing:
    mov dword ptr [ALIAS + 1023 * 4 + 2], ((FRAMES + 0x10000) >> 16) + ((0x1000 + BITS) << 16)
    invlpg [WINDOW + 1023 * 4096]
    invlpg [WINDOW + 1024 * 4096]
    mov eax, dword ptr [WINDOW + 1023 * 4096]
    mov dword ptr [results + 8 * 4], eax
    mov eax, dword ptr [WINDOW + 1024 * 4096]
    mov dword ptr [results + 9 * 4], eax

; What is no table any more is nobody's business: the page is unhooked, then written to. One page in it has been used.
    mov dword ptr [other_table + 5 * 4], FRAMES + 0x5000 + BITS
    mov eax, dword ptr [WINDOW + 1029 * 4096]
    mov dword ptr [directory + (WINDOW >> 22) * 4 + 4], 0
    invlpg [WINDOW + 1024 * 4096]
unhooked:
    mov dword ptr [other_table + 4], FRAMES + BITS
    mov dword ptr [finished], 1
stop:
    cli
    hlt
    jmp stop

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            ; 32-bit code
    .quad 0x00cf93000000ffff            ; data
    .quad 0x00009b000000ffff            ; 16-bit code
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
idt_pointer:
    .word idt_end - idt - 1
    .long idt
.align 8
idt:
    .space 0x30 * 8
    .word 0, 0x08, 0x8e00, 0            ; its address is filled in
idt_end:

.align 4096
directory:   .space 4096
low_table:   .space 4096
table:       .space 4096
alias_table: .space 4096                ; between the two in memory
other_table: .space 4096
results:     .space 40
finished:    .long 0
.align 4096
    .space 4096
stack_top:
