; The kernel's own descriptor tables, and a look at whether they are really in force.
;
; A kernel may ask the processor at any time what it has loaded: sgdt, sidt, sldt, str, smsw, pushfq, a read of cs,
; lar, lsl, verr. None of them is privileged on this processor: they never fault, they just answer. So whoever runs a
; kernel at another privilege level, or with other tables than it believes, must take care that these answers stay
; right, at their full width.

.equ TSS_RSP0, 4                    ; offsets in a 64-bit task state segment
.equ TSS_IST1, 0x24
.equ TSS_IO_MAP, 0x66
.equ TSS_SIZE, 104

.equ FLAG_INTERRUPT, 0x0200
.equ FLAG_IOPL, 0x3000
.equ FLAGS_CHECKED, FLAG_INTERRUPT + FLAG_IOPL + 2  ; bit 1 is always 1

.equ STAR, 0xc0000081
.equ LSTAR, 0xc0000082
.equ FMASK, 0xc0000084
.equ FS_BASE, 0xc0000100
.equ GS_BASE, 0xc0000101
.equ KERNEL_GS_BASE, 0xc0000102

.equ INTERRUPT_GATE, 0x8e00         ; clears IF on entry; privilege 0
.equ INTERRUPT_GATE_USER, 0xee00    ; the same, and a program may use it by int n
.equ INTERRUPT_GATE_IST1, 0x8e01    ; the same as the first, always on the stack IST1
.equ TRAP_GATE_USER, 0xef00         ; leaves IF alone

.macro write_msr register, value    ; 64 bits; spoils rax, rcx, rdx
    mov ecx, \register
    mov rax, \value
    mov rdx, rax
    shr rdx, 32
    wrmsr
.endm

.macro read_msr register            ; -> rax; spoils rcx, rdx
    mov ecx, \register
    rdmsr
    shl rdx, 32
    or rax, rdx
.endm

.code64
load_tables:
    lgdt [gdt_pointer]
    mov eax, KERNEL_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rax, interrupt_stack_top    ; where the stack goes on entry from a program
    mov [tss + TSS_RSP0], rax
    mov rax, HIGH + double_fault_stack_top
    mov [tss + TSS_IST1], rax
    mov word ptr [tss + TSS_IO_MAP], TSS_SIZE   ; a map beyond the limit: no port is open to a program
    mov eax, TSS_SELECTOR
    ltr ax
    xor eax, eax
    lldt ax                         ; no local descriptor table

    mov rsi, entries                ; the first 48 vectors: 32 exceptions, 16 interrupts
    mov rdi, idt
    mov ecx, 48
.gate:
    lodsq
    mov edx, INTERRUPT_GATE
    call set_gate
    dec ecx
    jnz .gate
    mov rax, HIGH + breakpoint_entry            ; int3 belongs to programs as well
    mov edx, INTERRUPT_GATE_USER
    mov rdi, idt + 3 * 16
    call set_gate
    mov rax, HIGH + ist_entry
    mov edx, INTERRUPT_GATE_IST1
    mov rdi, idt + 0x30 * 16
    call set_gate
    mov rax, HIGH + call_entry
    mov edx, TRAP_GATE_USER
    mov rdi, idt + 0x80 * 16
    call set_gate
    lidt [idt_pointer]

    write_msr STAR, (USER_CODE32 << 48) + (KERNEL_CODE << 32)
    write_msr LSTAR, HIGH + syscall_entry
    write_msr FMASK, FLAG_INTERRUPT
    write_msr KERNEL_GS_BASE, HIGH + own_data
    write_msr GS_BASE, user_data    ; what the program has gs for
    ret

set_gate:                           ; rax = the handler, edx = the kind, rdi = the gate; leaves rdi at the next one
    mov word ptr [rdi], ax
    mov word ptr [rdi + 2], KERNEL_CODE
    mov word ptr [rdi + 4], dx
    shr rax, 16
    mov word ptr [rdi + 6], ax
    shr rax, 16
    mov [rdi + 8], rax
    add rdi, 16
    ret

check_tables:                       ; on three lines; spoils the registers
    say text_check
    sgdt [pointer_read]
    mov rax, [pointer_read + 2]
    compare text_gdtr, gdt
    movzx eax, word ptr [pointer_read]
    compare text_limit, gdt_end - gdt - 1
    sidt [pointer_read]
    mov rax, [pointer_read + 2]
    compare text_idtr, HIGH + idt
    movzx eax, word ptr [pointer_read]
    compare text_limit, idt_end - idt - 1
    str ax
    movzx eax, ax
    compare text_tr, TSS_SELECTOR
    movzx eax, byte ptr [gdt_tss + 5]
    compare text_busy, 0x8b         ; ltr has marked the descriptor as busy: 0x89 became 0x8b
    xor eax, eax
    dec rax
    sldt ax
    movzx eax, ax
    compare text_ldtr, 0
    smsw ax
    movzx eax, ax
    mov rdx, cr0
    and edx, 0xffff
    mov rsi, text_msw
    call check
    say text_check_more

    mov ax, cs
    movzx eax, ax
    compare text_cs, KERNEL_CODE
    mov ax, ss
    movzx eax, ax
    compare text_ss, KERNEL_DATA
    mov ecx, KERNEL_CODE
    lar eax, ecx                    ; access rights: privilege 0 shows only to privilege 0
    and eax, 0x00f0ff00
    compare text_lar, 0x00a09b00
    xor eax, eax
    mov ecx, TSS_SELECTOR
    lsl eax, ecx
    compare text_lsl, TSS_SIZE - 1
    mov ecx, KERNEL_DATA
    xor eax, eax
    verr cx
    setz al
    compare text_verr, 1
    int 0x30                        ; through the gate with a stack of its own
    compare text_ist, 0
    say text_check_flags

    cli                             ; IF: four ways to set it, and the pushed flags must tell it
    call read_flags
    compare text_cli, 2
    sti
    call read_flags
    compare text_sti, 2 + FLAG_INTERRUPT
    push 2
    popfq
    call read_flags
    compare text_popfq, 2
    push 2 + FLAG_INTERRUPT
    popfq
    call read_flags
    compare text_popfq, 2 + FLAG_INTERRUPT
    push 2 + FLAG_IOPL              ; the I/O privilege level too is the kernel's to set
    popfq
    call read_flags
    compare text_iopl, 2 + FLAG_IOPL
    push 2
    popfq
    call read_flags
    compare text_iopl, 2
    say new_line
    ret

check_registers:                    ; the control registers and the MSRs of long mode
    say text_registers
    mov rax, cr0
    mov edx, CR0_PAGING + CR0_WRITE_PROTECT + CR0_PROTECTION
    and eax, edx
    mov rsi, text_cr0
    call check
    mov rax, cr3
    compare text_cr3, pml4
    mov rax, cr4
    compare text_cr4, CR4_PAE + CR4_OSFXSR
    mov rax, 0xfedcba9876543210     ; cr2 is a register like any other, until the next page fault
    mov cr2, rax
    mov rdx, rax
    mov rax, cr2
    mov rsi, text_cr2
    call check
    mov rax, cr8
    compare text_cr8, 0
    read_msr EFER
    compare text_efer, EFER_OURS + EFER_LMA
    read_msr STAR
    shr rax, 32
    compare text_star, (USER_CODE32 << 16) + KERNEL_CODE
    read_msr LSTAR
    compare text_lstar, HIGH + syscall_entry
    read_msr FMASK
    compare text_fmask, FLAG_INTERRUPT
    read_msr GS_BASE
    compare text_gs, user_data
    swapgs
    read_msr GS_BASE
    compare text_swapgs, HIGH + own_data
    mov rax, gs:[8]                 ; own_data + 8: a mark
    compare text_own_data, 0x0dd0da7a
    swapgs
    say new_line
    ret

read_flags:                         ; -> rax: IF, IOPL and bit 1 of the flags
    pushfq
    pop rax
    and eax, FLAGS_CHECKED
    ret

ist_entry:                          ; -> rax: 0 if the frame is where IST1 says
    mov rax, HIGH + double_fault_stack_top - 40
    sub rax, rsp
    iretq

gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word idt_end - idt - 1
    .quad HIGH + idt

text_check: .asciz "guest64: I read back what I loaded:"
text_check_more: .asciz "\nguest64: segments:"
text_check_flags: .asciz "\nguest64: flags:"
text_registers: .asciz "guest64: registers:"
text_gdtr: .asciz " gdtr"
text_idtr: .asciz ", idtr"
text_limit: .asciz ", limit"
text_tr: .asciz ", tr"
text_busy: .asciz ", busy"
text_ldtr: .asciz ", ldtr"
text_msw: .asciz ", msw"
text_cs: .asciz " cs"
text_ss: .asciz ", ss"
text_lar: .asciz ", lar"
text_lsl: .asciz ", lsl"
text_verr: .asciz ", verr"
text_ist: .asciz ", ist"
text_cli: .asciz " cli"
text_sti: .asciz ", sti"
text_popfq: .asciz ", popfq"
text_iopl: .asciz ", iopl"
text_cr0: .asciz " cr0"
text_cr3: .asciz ", cr3"
text_cr4: .asciz ", cr4"
text_cr2: .asciz ", cr2"
text_cr8: .asciz ", cr8"
text_efer: .asciz ", efer"
text_star: .asciz ", star"
text_lstar: .asciz ", lstar"
text_fmask: .asciz ", fmask"
text_gs: .asciz ", gs"
text_swapgs: .asciz ", swapgs"
text_own_data: .asciz ", gs:[8]"
