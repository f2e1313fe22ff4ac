; a host of 64 bits, as small as can be: a timer, a program in ring 3 that asks for its guest to be run, a driver that
; knocks at the hypervisor's door, and two things that it does to see who answers
;
; The program is the emulation program: it makes the system call again and again until the answer says that the guest has
; ended. Before each knock, and once more after it, the driver divides by zero, raises interrupt 0x30, and notes what it
; finds at WINDOW; then it writes to the CHECKPOINT.

.origin 0x02000000
.entry start

USER_DATA    = 0x23
USER_CODE    = 0x2b
TASK         = 0x30
BITS         = 3                        ; present, writable
USER         = 4
GUEST_MEMORY = 0x40000000               ; where the machine's first memory is, 16 MiB
WINDOW       = 0x40300000
DOOR         = 0x4856
CHECKPOINT   = 0x4858
ENDED        = 3                        ; an answer

.include "enter64.asm"

.macro gate number, handler, kind
    mov eax, \handler
    mov rdi, kernel_idt + (\number) * 16
    mov word ptr [rdi], ax
    mov word ptr [rdi + 2], CODE64
    mov word ptr [rdi + 4], (\kind) << 8
    shr eax, 16
    mov word ptr [rdi + 6], ax
.endm

.macro out_byte port, value
    mov al, \value
    out \port, al
.endm

.code32
start:
    cli
    cld
    mov esp, kernel_stack_top
    or dword ptr [image_table + ((program >> 12) & 511) * 8], USER
    or dword ptr [image_table + ((program >> 12) & 511) * 8 + 8], USER
    mov eax, pml4
    jmp enter_long_mode

.code64
long:
    gate 0, divide_entry, 0x8e
    gate 14, page_fault_entry, 0x8e
    gate 0x20, timer_entry, 0x8e
    gate 0x30, probe_entry, 0x8e
    gate 0x80, call_entry, 0xee
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    out_byte 0x20, 0x11                 ; the interrupt controller: vectors 0x20-0x27, the timer alone
    out_byte 0x21, 0x20
    out_byte 0x21, 4
    out_byte 0x21, 1
    out_byte 0x21, 0xfe
    out_byte 0x43, 0x34                 ; the timer: 1193182 Hz / 298
    out_byte 0x40, 0x2a
    out_byte 0x40, 0x01
    push USER_DATA
    push program_stack_top
    push 0x202
    push USER_CODE
    push program
    iretq

; ---------------------------------------------------------------------------------------------- the driver's system call
call_entry:                             ; -> eax: the answer
    call witness
    mov edx, DOOR
    out dx, eax
    jmp door_return                     ; ends the straight run of instructions
door_return:
    call witness
    call checkpoint
    call witness
    call checkpoint
    mov eax, dword ptr [answer]
    cmp eax, ENDED
    je finish
    iretq

witness:
    int 0x30
    xor ecx, ecx
    xor edx, edx
    mov eax, 1
    div ecx
    mov eax, dword ptr [WINDOW]
    mov dword ptr [host_window], eax
    mov eax, dword ptr [DEMAND]         ; not there the first time
    ret

checkpoint:
    mov edx, CHECKPOINT
    out dx, eax
    jmp checkpoint_passed
checkpoint_passed:
    ret

finish:
    cli
    out_byte 0x21, 0xff
    mov rsi, text
.next:
    lodsb
    test al, al
    jz .halt
    out 0xe9, al
    jmp .next
.halt:
    hlt
    jmp .halt

divide_entry:
    inc dword ptr [host_divides]
    add qword ptr [rsp], 2              ; behind the div
    iretq

probe_entry:
    inc dword ptr [host_probes]
    iretq

timer_entry:
    push rax
    inc dword ptr [ticks]
    out_byte 0x20, 0x20
    pop rax
    iretq

DEMAND = 0x80000000                     ; a page that is mapped when it is touched
page_fault_entry:
    push rax
    mov rax, cr2
    cmp eax, DEMAND
    jne .bad
    inc dword ptr [page_faults]
    mov qword ptr [demand_table], demand_page + BITS
    pop rax
    add rsp, 8                          ; the error code
    iretq
.bad:
    hlt
    jmp .bad

text: .asciz "host64: exit=0\n"

.align 8
kernel_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            ; 64-bit code
    .quad 0x00cf93000000ffff            ; data
    .quad 0x00cffb000000ffff            ; 32-bit code of ring 3, unused
    .quad 0x00cff3000000ffff            ; data of ring 3
    .quad 0x00affb000000ffff            ; 64-bit code of ring 3
    .word 103, kernel_tss & 0xffff
    .byte (kernel_tss >> 16) & 0xff, 0x89, 0, kernel_tss >> 24
    .quad 0
kernel_gdt_end:
gdt = kernel_gdt
gdt_pointer:
    .word kernel_gdt_end - kernel_gdt - 1
    .quad kernel_gdt
idt_pointer:
    .word 256 * 16 - 1
    .quad kernel_idt

.align 4096
ticks:        .long 0
page_faults:  .long 0
host_probes:  .long 0
host_divides: .long 0
host_window:  .long 0
answer:       .long 0                   ; written from behind the door
.align 128
kernel_tss:
    .long 0
    .quad interrupt_stack_top
    .space 0x5a
    .word 0x68
.align 16
kernel_idt: .space 256 * 16

; Page tables: [32 MiB, 64 MiB) one to one for ring 0, but for the program's page and its stack; the guest's memory.
.align 4096
pml4:
    .quad pdpt + BITS + USER
    .space 511 * 8
pdpt:
    .quad directory + BITS + USER
    .quad guest_directory + BITS + USER
    .quad demand_directory + BITS
    .space 509 * 8
directory:
    .space 16 * 8
    .quad image_table + BITS + USER     ; the 2 MiB that this image is in
.rept 15
    .quad 0x02200000 + \+ * 0x200000 + BITS + LARGE
.endr
    .space 480 * 8
image_table:
.rept 512
    .quad 0x02000000 + \+ * 0x1000 + BITS
.endr
guest_directory:
.rept 8
    .quad \+ * 0x200000 + BITS + USER + LARGE
.endr
    .space 504 * 8
demand_directory:
    .quad demand_table + BITS
    .space 511 * 8
demand_table: .space 4096
demand_page:  .space 4096
    .space 4096
kernel_stack_top:
    .space 4096
interrupt_stack_top:

; ---------------------------------------------------------------------------------------------- the emulation program
program:
    int 0x80
    jmp program
.align 4096
    .space 4096
program_stack_top:
