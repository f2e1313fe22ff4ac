; the whole story: a small kernel that uses its processor to the full, and checks everything it can see of it
;
; This is an ordinary kernel. It is made for no hypervisor and makes no allowance for one: it loads its own tables,
; turns its own paging on, takes its own exceptions and interrupts, drives its own devices. Run it alone with `hvproto
; boot`, or as a guest with `hvproto run`: it must print the same, to the byte. That is what it is for. Where it says
; "ok", it has compared what the processor shows it with what it has loaded; where that differs, it says WRONG, and
; what it found.
;
; Its memory, 16 MiB from 0:
;   0x000000  page 0, never mapped
;   0x100000  this image, with stacks and page tables
;   0x400000  pages given out on demand
;   0x500000  the page whose accessed and dirty bits are looked at
;   0x700000  four pages, then from 0x800000 on 4 MiB, that the greedy part maps to the top of the address space
; Its addresses: all of that one to one, 0x40000000-0x403fffff on demand, and 0xfd000000-0xffffffff when it gets greedy.
;
; Where to read: this file tells the order; guest/tables.asm has the descriptor tables and the checks of them,
; guest/exceptions.asm the exceptions, guest/paging.asm the page tables, guest/program.asm the program in ring 3,
; guest/greedy.asm the part that moves a hypervisor from wherever it sits.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"      ; must come first
.include "guest/console.asm"
.include "guest/timer.asm"
.include "guest/tables.asm"
.include "guest/exceptions.asm"
.include "guest/disk.asm"
.include "guest/program.asm"
.include "guest/paging.asm"
.include "guest/greedy.asm"

start:
    cli
    cld
    mov esp, stack_top

    ; 1. The serial port, the interrupt controllers (masked: no interrupt may come before its handler), the tables.
    call console_initialise
    say text_hello
    call initialise_interrupts
    call load_tables
    call check_tables

    ; 2. Paging. From here on every address is looked up in our tables.
    call start_paging

    ; 3. A block from the disk.
    call read_disk

    ; 4. A program in ring 3 that does whatever a program should not: each time it ends up in a handler of ours, which
    ; puts it right and lets the program go on. Then two faults of the kernel itself.
    call run_program
    call touch_kernel

    ; 5. What the processor writes into our page tables.
    call check_accessed_and_dirty

    ; 6. Interrupts from the timer, 4000 a second: asleep, then awake.
    call start_timer
    call wait_in_halt
    call wait_in_spin
    call stop_timer

    ; 7. Everything from the top of the address space downwards, 12 times 4 MiB; then all of it back.
    call greedy
    call compare_slots
    call give_back

    ; 8. Are the tables still those that we loaded? And was every page fault one of ours? Two of the program, two of the
    ; kernel in step 4, and in step 7 eight a slot before it is mapped and eight after: 4 + 12 * 16 = 196.
    call check_tables
    say text_faults
    mov eax, dword ptr [faults]
    call print_decimal
    say new_line
    cmp dword ptr [failures], 0
    jne .failed
    say text_done
    jmp stop
.failed:
    mov eax, dword ptr [failures]
    say text_failed
    call print_decimal
    say new_line
    mov al, 1
    out 0xf4, al                    ; a debug exit where there is one
stop:
    cli                             ; without interrupts nothing ends a halt: this is the end
    hlt
    jmp stop

text_hello: .asciz "guest: hello, I am a kernel and this is my machine\n"
text_faults: .asciz "guest: page faults in all: "
text_done: .asciz "guest: done\n"
text_failed: .asciz "guest: checks that failed: "

.align 4096                         ; what is written all the time keeps off the pages that are executed
ticks: .long 0                      ; timer interrupts
spins: .long 0                      ; turns of the loop that waits for them awake
.align 16
    .space 4096
stack_top:                          ; the kernel's stack
    .space 4096
interrupt_stack_top:                ; the stack that interrupts from a program come in on
image_end:
