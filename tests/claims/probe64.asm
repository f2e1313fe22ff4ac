; probe.asm's counterpart of 64 bits: a small guest that tries everything once, and writes down what became of it: divide
; error, software interrupt, SYSCALL, timer, pages that only its own table maps, a line on the serial port, a block of
; the disk
;
; It runs bare and hosted. The tests read its variables from RAM.

.origin 0x100000
.entry start

USER_BASE   = 0x1b                      ; SYSRET: data is the next descriptor, 64-bit code the one after that
USER_DATA   = 0x23
USER_CODE   = 0x2b
TASK        = 0x30
WINDOW      = 0x40300000                ; a linear address that the host's own table maps to other memory: see witness.asm
HIGH_WINDOW = 0xffffffffc0000000        ; one that no host of 32 bits has
WINDOW_PAGE = 0x00200000                ; what we map at both
BITS        = 7
COM1        = 0x3f8
ATA         = 0x1f0
BLOCK       = 7
STAR        = 0xc0000081
LSTAR       = 0xc0000082
FMASK       = 0xc0000084
GS_BASE     = 0xc0000101
KERNEL_GS   = 0xc0000102
MARK        = 0xffffa5a5deadbeef        ; in KERNEL_GS, in registers

.macro gate number, handler, kind
    mov eax, \handler
    mov rdi, idt + (\number) * 16
    mov word ptr [rdi], ax
    mov word ptr [rdi + 2], CODE64
    mov word ptr [rdi + 4], (\kind) << 8
    shr eax, 16
    mov word ptr [rdi + 6], ax
.endm

.macro write_msr number, value
    mov ecx, \number
    mov rax, \value
    mov rdx, rax
    shr rdx, 32
    wrmsr
.endm

.macro check_msr number, value
    mov ecx, \number
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov rdx, \value
    cmp rax, rdx
    setne al
    movzx eax, al
    add dword ptr [msr_changes], eax
.endm

start:
    cli
    cld
    mov esp, stack_top
    mov dword ptr [WINDOW_PAGE], 0x60e57000
    mov eax, pml4
    jmp enter_long_mode

.include "enter64.asm"

long:
    gate 0, divide_entry, 0x8e
    gate 0x20, timer_entry, 0x8e
    gate 0x30, probe_entry, 0xee
    gate 0x31, leave_entry, 0xee
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    xor eax, eax                        ; with a privileged selector in it, GS loses its base on the way to ring 3
    mov gs, eax
    write_msr STAR, (USER_BASE << 48) + (CODE64 << 32)
    write_msr LSTAR, syscall_entry
    write_msr FMASK, 0x200
    write_msr GS_BASE, WINDOW
    write_msr KERNEL_GS, MARK
    jmp paging
paging:
    mov eax, dword ptr [WINDOW]
    mov dword ptr [kernel_window], eax
    mov rbx, HIGH_WINDOW
    mov eax, dword ptr [rbx]
    mov dword ptr [high_window], eax
    push USER_DATA                      ; a program
    push program_stack_top
    push 0x202
    push USER_CODE
    push program
    iretq

program:
    xor ecx, ecx
    xor edx, edx
    mov eax, 42
    mov r15, MARK
    movq xmm7, r15
    jmp program_divide                  ; ends the straight run of instructions: a test may want to stop there
program_divide:
    div ecx
program_divided:
    mov dword ptr [program_eax], eax    ; untouched
program_probe:
    int 0x30
program_probed:
    syscall
program_called:
    mov eax, dword ptr [WINDOW]
    mov dword ptr [program_window], eax
    mov eax, dword ptr gs:[0]
    mov dword ptr [program_gs], eax
    int 0x31                            ; back to the kernel

leave_entry:
    mov rsp, stack_top
    mov eax, DATA
    mov ss, eax

; What the processor notes in our table: nothing, accessed, dirty.
SECOND = window_table + ((WINDOW >> 12) & 511) * 8 + 8
bits:
    mov eax, dword ptr [SECOND]
    mov dword ptr [bits_untouched], eax
    mov ebx, dword ptr [WINDOW + 0x1000]
    mov eax, dword ptr [SECOND]
    mov dword ptr [bits_read], eax
    mov dword ptr [WINDOW + 0x1000], 0xd1127000
    mov eax, dword ptr [SECOND]
    mov dword ptr [bits_written], eax
bits_end:

    mov al, 0x11                        ; interrupts: vectors 0x20-0x27, the timer at 4000 a second
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0x2a
    out 0x40, al
    mov al, 0x01
    out 0x40, al
    sti
spin:
    inc dword ptr [spins]
    cmp dword ptr [ticks], 3
    jb spin
spin_end:
    cli
    mov al, 0xff
    out 0x21, al

    mov rsi, text
print:
    mov dx, COM1 + 5
    in al, dx
    test al, 0x20
    jz print
    mov dx, COM1
    lodsb
    test al, al
    jz printed
    out dx, al
    jmp print
printed:

    mov dx, ATA + 6
    mov al, 0xe0
    out dx, al
    mov dx, ATA + 2
    mov al, 1
    out dx, al
    inc edx
    mov al, BLOCK
    out dx, al
    inc edx
    mov al, 0
    out dx, al
    inc edx
    out dx, al
    mov dx, ATA + 7
    mov al, 0x20
    out dx, al
busy:
    in al, dx
    test al, 0x80
    jnz busy
    test al, 0x08
    jz no_disk                          ; the buffer stays empty
    mov dx, ATA
    mov rdi, disk_block
    mov ecx, 256
    rep insw
no_disk:

; What 64 bits alone have: is all of it still as it was, after all those stays of the host on the processor?
    check_msr EFER, 0xd01
    check_msr STAR, (USER_BASE << 48) + (CODE64 << 32)
    check_msr LSTAR, syscall_entry
    check_msr FMASK, 0x200
    check_msr GS_BASE, WINDOW
    check_msr KERNEL_GS, MARK
    mov rax, MARK
    movq rdx, xmm7
    xor rdx, rax
    xor rax, r15
    or rax, rdx
    mov [mark_changes], rax
stop:
    mov dword ptr [finished], 1
    cli
    hlt
    jmp stop

divide_entry:
    inc dword ptr [divides]
    add qword ptr [rsp], 2
    iretq

divide_end:

divide_other:                           ; nobody's, unless a test has the gate point here
    inc dword ptr [others]
    add qword ptr [rsp], 2
    iretq

probe_entry:
    inc dword ptr [probes]
    iretq

syscall_entry:
    inc dword ptr [calls]
    sysretq

timer_other:                            ; the same
    inc dword ptr [others]

timer_entry:
    inc dword ptr [ticks]
    push rax
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq

text: .asciz "probe64: I have printed this\n"

.align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            ; 64-bit code
    .quad 0x00cf93000000ffff            ; data
    .quad 0x00cffb000000ffff            ; 32-bit code of ring 3, unused
    .quad 0x00cff3000000ffff            ; data of ring 3
    .quad 0x00affb000000ffff            ; 64-bit code of ring 3
    .word 103, tss & 0xffff
    .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

.align 4096                             ; what is written keeps off the pages that are executed
divides:        .long 0
probes:         .long 0
calls:          .long 0
others:         .long 0
ticks:          .long 0
spins:          .long 0
kernel_window:  .long 0
program_window: .long 0
high_window:    .long 0
program_gs:     .long 0
program_eax:    .long 0
bits_untouched: .long 0
bits_read:      .long 0
bits_written:   .long 0
msr_changes:    .long 0
mark_changes:   .quad 0
finished:       .long 0
.align 128
tss:
    .long 0
    .quad interrupt_stack_top
    .space 0x5a
    .word 0x68
.align 16
idt: .space 256 * 16
disk_block: .space 512
.align 4096
pml4:
    .quad low_pdpt + BITS
    .space 510 * 8
    .quad high_pdpt + BITS
low_pdpt:
    .quad low_directory + BITS
    .quad window_directory + BITS
    .space 510 * 8
low_directory:                          ; the first 4 MiB one to one, for everybody
    .quad BITS + LARGE, 0x200000 + BITS + LARGE
    .space 510 * 8
window_directory:
    .quad 0
    .quad window_table + BITS           ; 0x40200000 and up
    .space 510 * 8
window_table:
    .space 256 * 8
    .quad WINDOW_PAGE + BITS            ; 0x40300000
    .quad WINDOW_PAGE + 0x1000 + BITS
    .space 254 * 8
high_pdpt:
    .space 511 * 8
    .quad high_directory + BITS
high_directory:
    .quad high_table + BITS
    .space 511 * 8
high_table:
    .quad WINDOW_PAGE + BITS
    .space 511 * 8
    .space 4096
stack_top:
    .space 4096
interrupt_stack_top:
    .space 4096
program_stack_top:
