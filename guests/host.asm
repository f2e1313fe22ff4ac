; The bundled host: a small 32-bit operating system kernel with two programs.
;
; It is the "host operating system" of Figure 1. It knows nothing of virtual machines: it has a timer, a scheduler,
; ten system calls, and drivers for a serial port, a disk and a debug console. One of its two programs is the
; emulation program, which runs once for each guest, and one of the ten calls, enter_guest, is the driver by which that program asks whoever stands
; behind port 0x4856 to run a guest. With nobody there the kernel runs all the same, says so, and ends.
;
; Reading order: this file (start and end), then host/paging.asm, host/traps.asm, host/sched.asm,
; host/syscalls.asm (the door is there), host/drivers.asm, host/programs.asm (what runs in ring 3); then, for a guest
; that lives inside of the emulation program (Figure 1), host/signals.asm and host/mapping.asm; and for several guests,
; or larger ones, host/guests.asm.
;
; Physical memory, 64 MiB                             Virtual memory
;   0x00000000  guest RAM, 16 MiB                       0x00000000  nothing: a null pointer faults
;   0x01000000  the hypervisor's pool, 16 MiB           0x02000000  all of the host's memory at its physical address,
;   0x02000000  this image, well under 4 MiB                        ring 0 only but for a program's own pages
;   0x02400000  frames for page tables and processes    0x08048000  the information page, read-only for programs
;   0x04000000  the end of RAM                          0x0bf00000  heap, growing up       } demand-zero pages,
;                                                       0x0c000000  stack, growing down    } 1 MiB for both
;                                                       0x30000000  the pool      } only in the directory of the
;                                                       0x40000000  guest RAM     } emulation program
; The host stays out of the low 32 MiB, so that a guest may have it at the addresses where a kernel expects memory.
; More guests, and guests with more memory, get theirs above the host's 64 MiB.

.origin 0x02000000
.entry host_start

GUEST_MEMORY  = 0x40000000              ; where the emulation program sees the guest's RAM ...
GUEST_SIZE    = 0x01000000              ; unless the command line says something else
GUEST_PHYSICAL = 0                      ; the machine's first memory
POOL_MEMORY   = 0x30000000              ; ... and the pages it lends to its hypervisor
POOL_SIZE     = 0x01000000
POOL_PHYSICAL = 0x01000000
HOST_MEMORY   = 0x02000000
HOST_END      = 0x04000000              ; of RAM, and of the addresses that the kernel keeps for itself
FIRST_FRAME   = 0x02400000
INFO_PAGE     = 0x08048000
HEAP          = 0x0bf00000
STACK_TOP     = 0x0c000000
PAGE_SIZE     = 4096

KERNEL_CODE = 0x08                      ; selectors: index * 8 + the ring that may use it
KERNEL_DATA = 0x10
USER_CODE   = 0x1b
USER_DATA   = 0x23
TASK        = 0x28

.macro SAY text                         ; a text that ends with 0, on the debug console
    mov esi, \text
    call print_string
.endm

; ---------------------------------------------------------------------------------------------------------- start
; A multiboot loader leaves us in protected mode with paging and interrupts off, flat segments of its own, and no
; stack. Everything is brought up in the order in which the next thing needs it.
host_start:
    cli
    cld
    mov esp, idle_stack_top             ; whoever boots becomes the idle process, and keeps this stack
    call read_command_line              ; while EAX and EBX are the loader's, and its memory nobody else's
    lgdt [kernel_gdt_pointer]
    jmp KERNEL_CODE:.own_segments       ; a far jump is the only way to load CS
.own_segments:
    mov ax, KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, cr4
    or eax, 0x200                       ; OSFXSR: programs may use SSE, and FXSAVE keeps it
    mov cr4, eax
    call build_directories
    mov eax, kernel_page_directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000                  ; PG, and WP: read-only is meant for the kernel, too
    mov cr0, eax
    jmp .paging                         ; throw away what was fetched before
.paging:
    call build_idt
    lidt [kernel_idt_pointer]
    mov ax, TASK
    ltr ax
    call start_serial
    call start_interrupt_controllers
    call create_processes
    SAY host_up
    call start_timer
    jmp idle

; ------------------------------------------------------------------------------------------------------------ end
; The idle process comes here when no other is left. The timer is stopped first and then given its last chance: a
; tick that was raised while IF was 0 is still waiting in the controller, and it is counted before it is masked. For
; that the timer's output must not fall, or the controller would take the tick for withdrawn: mode 2 keeps it high.
finish:
    mov al, 0x34                        ; channel 0 to mode 2, and no count follows: it stands still
    out 0x43, al
    mov ecx, 256                        ; for a while: not every processor looks at its interrupts after each
    sti                                 ; instruction, and none does right after STI
.drain:
    dec ecx
    jnz .drain
    cli
    mov al, 0xff
    out 0xa1, al
    out 0x21, al
    mov esi, processes
.status:                                ; the first one that is not 0; the worker's comes last
    cmp esi, worker_process
    je .next
    mov ebx, [esi + PROCESS_STATUS]
    test ebx, ebx
    jnz .report
.next:
    add esi, PROCESS_SIZE
    cmp esi, [processes_end]
    jb .status
    mov ebx, [worker_process + PROCESS_STATUS]      ; a worker that came to grief is no success either
.report:
    SAY host_ticks
    mov eax, [ticks]
    call print_decimal
    SAY host_page_faults
    mov eax, [page_faults]
    call print_decimal
    SAY host_worker
    mov eax, [worker_count]
    call print_decimal
    SAY host_exit
    mov eax, ebx
    call print_decimal
    SAY host_newline
    test ebx, ebx
    jz halt

; The debug exit port ends the machine with status 2 * value + 1. An odd status (1, or what a guest gave to its own
; port 0xf4) comes out unchanged; an even one comes out less 1, and never as 0.
    lea eax, [ebx - 1]
    shr eax, 1
fail:                                   ; with the value in AL
    out 0xf4, al
halt:
    cli                                 ; HLT with IF = 0: nothing can wake the machine, and it is off
    hlt
    jmp halt

.include "host/guests.asm"
.include "host/paging.asm"
.include "host/traps.asm"
.include "host/sched.asm"
.include "host/syscalls.asm"
.include "host/signals.asm"
.include "host/mapping.asm"
.include "host/drivers.asm"

; ----------------------------------------------------------------------------------------------------------- data
; Segments: all flat, 4 GiB from 0; protection is left to the pages. The accessed bits are set already, or the
; processor would set them. The TSS is there for one number: where the stack is when ring 3 comes to ring 0.
.align 16
kernel_gdt:
    .quad 0                             ; 0x00 the null selector
    .quad 0x00cf9b000000ffff            ; 0x08 ring 0, code
    .quad 0x00cf93000000ffff            ; 0x10 ring 0, data
    .quad 0x00cffb000000ffff            ; 0x18 ring 3, code
    .quad 0x00cff3000000ffff            ; 0x20 ring 3, data
    .word kernel_tss_end - kernel_tss - 1           ; 0x28 the TSS: its limit, and its base in three pieces
    .word kernel_tss & 0xffff
    .byte (kernel_tss >> 16) & 0xff
    .byte 0x89                          ; present, ring 0, available 32-bit TSS
    .byte 0
    .byte kernel_tss >> 24
kernel_gdt_end:

kernel_gdt_pointer:
    .word kernel_gdt_end - kernel_gdt - 1
    .long kernel_gdt

.align 128                              ; within one page, whatever precedes it
kernel_tss:
    .long 0                             ; back link
    .long idle_stack_top                ; +4 ESP0, set at every switch of processes
    .long KERNEL_DATA                   ; +8 SS0
    .space 0x5a
    .word 0x68                          ; +0x66 the I/O map begins past the limit: ring 3 may use no port
kernel_tss_end:

ticks:         .long 0                  ; timer interrupts since boot
page_faults:   .long 0                  ; demand-zero pages served
divide_errors: .long 0                  ; programs that divided by zero

host_up:          .asciz "host: up\n"
host_ticks:       .asciz "host: ticks="
host_page_faults: .asciz " page_faults="
host_worker:      .asciz " worker="
host_exit:        .asciz " exit="
host_newline:     .asciz "\n"

; One kernel stack a process. A page each is plenty: the deepest use, a system call interrupted by a tick, takes some
; 200 bytes. The lowest 512 hold the process's floating point and SSE registers while another one runs.
.align PAGE_SIZE
idle_stack:     .space PAGE_SIZE
idle_stack_top:
emulator_stack: .space PAGE_SIZE
emulator_stack_top:
worker_stack:   .space PAGE_SIZE
worker_stack_top:

; The information page. Programs see it read-only at INFO_PAGE; the kernel writes it here.
shutting_down:  .long 0                 ; the emulation programs have ended, so should everybody
.align PAGE_SIZE

.include "host/programs.asm"
