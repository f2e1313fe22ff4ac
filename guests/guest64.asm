; the whole story in long mode: guest.asm's counterpart of 64 bits, greedy for both halves of the address space
;
; An ordinary kernel again, made for no hypervisor. A multiboot loader leaves it in 32-bit protected mode; it builds
; four levels of page tables and turns long mode on by itself. Alone (`hvproto boot guest64`) and as a guest (`hvproto
; run --guest guest64`) it must print the same, to the byte.
;
; Its memory, 16 MiB from 0:
;   0x000000  page 0, never mapped
;   0x100000  this image: what is executed comes first (read-only), then what is written (never executed)
;   0x400000  pages given out on demand
;   0x600000  the 2 MiB page whose accessed and dirty bits are looked at, with its 4 KiB neighbour
;   0x800000  2 MiB and 4 pages more that the greedy part maps to the ends of both halves
; Its addresses: all of that one to one, and once more from HIGH on, where its handlers run; 0x40000000-0x401fffff on
; demand; and whatever there is when it gets greedy.
;
; Where to read: this file tells the order; guest64/enter.asm is the way into long mode, guest64/tables.asm has the
; descriptor tables and the checks of them, guest64/exceptions.asm the exceptions, guest64/program.asm the program in
; ring 3 and its two kinds of system call, guest64/paging.asm the page tables' bits, guest64/greedy.asm the part that
; moves a hypervisor from wherever it sits. What is written lies in guest64/data.asm.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"      ; must come first
.include "guest64/enter.asm"
.include "guest64/console.asm"
.include "guest64/timer.asm"
.include "guest64/tables.asm"
.include "guest64/exceptions.asm"
.include "guest64/disk.asm"
.include "guest64/paging.asm"
.include "guest64/greedy.asm"

.code64
main:
    mov rsp, stack_top

    ; 1. The serial port, the interrupt controllers (masked: no interrupt may come before its handler), the tables.
    call console_initialise
    say text_hello
    call initialise_interrupts
    call load_tables
    call check_tables
    call check_registers

    ; 2. A block from the disk.
    call read_disk

    ; 3. A program in ring 3 that does whatever a program should not, and asks for things by SYSCALL and by INT 0x80.
    ; Then faults of the kernel itself.
    call run_program
    call touch_kernel

    ; 4. What the processor writes into our page tables.
    call check_accessed_and_dirty

    ; 5. Interrupts from the timer, 4000 a second: asleep, then awake, there in the upper half.
    call start_timer
    call wait_in_halt
    mov rax, HIGH + wait_in_spin
    call rax
    call stop_timer

    ; 6. The end of the first 4 GiB, those of both halves of the address space, and all of the upper half; then
    ; everything back.
    call greedy
    call compare_slots
    call give_back

    ; 7. Are the tables still those that we loaded? And was every page fault one of ours?
    call check_tables
    call check_registers
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

text_hello: .asciz "guest64: hello, I am a kernel of 64 bits and this is my machine\n"
text_faults: .asciz "guest64: page faults in all: "
text_done: .asciz "guest64: done\n"
text_failed: .asciz "guest64: checks that failed: "
new_line: .asciz "\n"

.include "guest64/program.asm"      ; on pages of its own
.include "guest64/data.asm"         ; what is written
image_end:
