; What is written: variables, descriptor tables, page tables, stacks. None of these pages is ever executed.

.align 4096
kernel_secret: .long 0x5ec2e700
failures: .long 0                   ; checks that did not hold
faults: .long 0                     ; page faults so far, of every kind
next_frame: .long 0x00400000        ; memory to give out, from 4 MiB on
ticks: .long 0                      ; timer interrupts
spins: .long 0                      ; turns of the loop that waits for them awake
rounds: .long 0                     ; of the greedy part, begun so far
wrong: .long 0                      ; what was not as it should be, of this round
touched: .long 0                    ; touches that faulted
.align 8
last_fault: .quad 0                 ; the address of the last page fault
kernel_stack: .quad 0               ; while the program runs
own_data:                           ; what gs leads to in the kernel
    .quad interrupt_stack_top
    .quad 0x0dd0da7a
    .quad 0                         ; the program's stack, for a moment
pointer_read: .space 16

.align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        ; 0x08 kernel code of 64 bits: privilege 0, accessed
    .quad 0x00cf93000000ffff        ; 0x10 kernel data
    .quad 0x00cffb000000ffff        ; 0x18 user code of 32 bits, which SYSRET counts from
    .quad 0x00cff3000000ffff        ; 0x20 user data: privilege 3
    .quad 0x00affb000000ffff        ; 0x28 user code of 64 bits
gdt_tss:                            ; 0x30 the TSS, 16 bytes
    .word TSS_SIZE - 1, tss & 0xffff
    .byte (tss >> 16) & 0xff, 0x89, 0, 0x80 + (tss >> 24)
    .quad 0xffffffff                ; at HIGH + tss
gdt_end:

.align 16
idt: .space 256 * 16                ; gates that nobody fills stay "not present"
idt_end:

.align 128                          ; so that it lies in one page
tss: .space TSS_SIZE

disk_block: .space 512

; The tables as the loader puts them: all memory one to one, none of it to be executed (guest64/enter.asm opens the
; pages of our code), 4 KiB pages up to 2 MiB and 2 MiB pages from there on; and once more at HIGH. Page 0 stays out:
; a null pointer is to be noticed.
.align 4096
pml4:
    .quad low_pdpt + PRESENT + WRITABLE + USER
    .space 254 * 8
    .quad edge_pdpt + PRESENT + WRITABLE        ; 255: the end of the lower half
    .space 255 * 8
    .quad high_pdpt + PRESENT + WRITABLE        ; 511: the end of the upper one
low_pdpt:
    .quad directory + PRESENT + WRITABLE + USER
    .quad demand_directory + PRESENT + WRITABLE + USER
    .quad 0
    .quad fourth_directory + PRESENT + WRITABLE ; the last GiB below 4
    .space 508 * 8
high_pdpt:
    .space 510 * 8
    .quad directory + PRESENT + WRITABLE        ; HIGH
    .quad top_directory + PRESENT + WRITABLE
edge_pdpt:
    .space 511 * 8
    .quad edge_directory + PRESENT + WRITABLE
directory:
    .quad low_table + PRESENT + WRITABLE + USER
.rept 7
    .quad (\+ + 1) * 0x200000 + PRESENT + WRITABLE + LARGE + NX
.endr
    .space 504 * 8
low_table:
    .quad 0
.rept 511
    .quad (\+ + 1) * 0x1000 + PRESENT + WRITABLE + NX
.endr
demand_directory:
    .quad demand_table + PRESENT + WRITABLE + USER
    .space 511 * 8
demand_table: .space 4096           ; addresses 0x40000000-0x401fffff
fourth_directory: .space 4096       ; addresses 0xc0000000-0xffffffff
top_directory: .space 4096          ; addresses 0xffffffffc0000000 and up
edge_directory: .space 4096         ; addresses 0x7fffc0000000-0x7fffffffffff
spare_table: .space 4096
gigantic_pdpt: .space 4096

user_stack: .space 4096
user_stack_top:
    .space 4096
stack_top:                          ; the kernel's stack
    .space 4096
interrupt_stack_top:                ; the stack that interrupts from a program come in on
    .space 4096
double_fault_stack_top:             ; the stack of gates that never trust the present one
