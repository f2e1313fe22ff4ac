; The kernel's own descriptor tables, and a look at whether they are really in force.
;
; A kernel may ask the processor at any time what it has loaded: sgdt, sidt, sldt, str, smsw, pushfd, a read of cs,
; lar, lsl, verr. None of them is privileged on this processor: they never fault, they just answer. So whoever runs a
; kernel at another privilege level, or with other tables than it believes, must take care that these answers stay
; right.

.equ KERNEL_CODE, 0x08
.equ KERNEL_DATA, 0x10
.equ USER_CODE, 0x1b            ; descriptor 0x18, requested privilege 3
.equ USER_DATA, 0x23
.equ TSS_SELECTOR, 0x28

.equ TSS_ESP0, 4                ; offsets in a 32-bit task state segment
.equ TSS_SS0, 8
.equ TSS_IO_MAP, 0x66
.equ TSS_SIZE, 104

.equ FLAG_INTERRUPT, 0x0200
.equ FLAG_IOPL, 0x3000
.equ FLAGS_CHECKED, FLAG_INTERRUPT + FLAG_IOPL + 2  ; bit 1 is always 1

.equ INTERRUPT_GATE, 0x8e       ; clears IF on entry; privilege 0
.equ INTERRUPT_GATE_USER, 0xee  ; the same, and a program may use it by int n
.equ TRAP_GATE_USER, 0xef       ; leaves IF alone

load_tables:
    lgdt [gdt_pointer]
    mov eax, KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    jmp KERNEL_CODE:load_task       ; cs changes only by a far transfer
load_task:
    mov dword ptr [tss + TSS_ESP0], interrupt_stack_top     ; where the stack goes on entry from a program
    mov dword ptr [tss + TSS_SS0], KERNEL_DATA
    mov word ptr [tss + TSS_IO_MAP], TSS_SIZE   ; a map beyond the limit: no port is open to a program
    mov eax, TSS_SELECTOR
    ltr ax
    xor eax, eax
    lldt ax                         ; no local descriptor table

    mov esi, entries                ; the first 48 vectors: 32 exceptions, 16 interrupts
    mov edi, idt
    mov ecx, 48
.gate:
    lodsd
    mov ebx, INTERRUPT_GATE
    call set_gate
    loop .gate
    mov eax, breakpoint_entry       ; int3 belongs to programs as well
    mov ebx, INTERRUPT_GATE_USER
    mov edi, idt + 3 * 8
    call set_gate
    mov eax, syscall_entry
    mov ebx, TRAP_GATE_USER
    mov edi, idt + 0x80 * 8
    call set_gate
    lidt [idt_pointer]
    ret

set_gate:                           ; eax = the handler, bl = the kind, edi = the gate; leaves edi at the next one
    mov word ptr [edi], ax
    mov word ptr [edi + 2], KERNEL_CODE
    mov byte ptr [edi + 4], 0
    mov byte ptr [edi + 5], bl
    shr eax, 16
    mov word ptr [edi + 6], ax
    add edi, 8
    ret

.macro compare name, expected       ; eax against what it has to be
    mov esi, \name
    mov edx, \expected
    call check
.endm

check_tables:                       ; on one line; spoils the registers
    say text_check
    sgdt [pointer_read]
    mov eax, dword ptr [pointer_read + 2]
    compare text_gdtr, gdt
    movzx eax, word ptr [pointer_read]
    compare text_limit, gdt_end - gdt - 1
    sidt [pointer_read]
    mov eax, dword ptr [pointer_read + 2]
    compare text_idtr, idt
    movzx eax, word ptr [pointer_read]
    compare text_limit, idt_end - idt - 1
    str ax
    movzx eax, ax
    compare text_tr, TSS_SELECTOR
    movzx eax, byte ptr [gdt_tss + 5]
    compare text_busy, 0x8b         ; ltr has marked the descriptor as busy: 0x89 became 0x8b
    xor eax, eax
    dec eax
    sldt ax
    movzx eax, ax
    compare text_ldtr, 0
    smsw ax
    movzx eax, ax
    mov edx, cr0
    and edx, 0xffff
    mov esi, text_msw
    call check
    say text_check_more

    mov ax, cs
    movzx eax, ax
    compare text_cs, KERNEL_CODE
    push cs
    pop eax
    and eax, 0xffff
    compare text_push_cs, KERNEL_CODE
    call KERNEL_CODE:far_routine    ; pushes cs too: the routine hands it back in eax
    compare text_far_call, KERNEL_CODE
    mov ax, ss
    movzx eax, ax
    compare text_ss, KERNEL_DATA
    mov ecx, KERNEL_CODE
    lar eax, ecx                    ; access rights: privilege 0 shows only to privilege 0
    and eax, 0x00f0ff00
    compare text_lar, 0x00c09b00
    xor eax, eax
    lsl eax, ecx
    compare text_lsl, 0xffffffff
    mov ecx, KERNEL_DATA
    xor eax, eax
    verr cx
    setz al
    compare text_verr, 1
    say text_check_flags

    cli                             ; IF: four ways to set it, and the pushed flags must tell it
    call read_flags
    compare text_cli, 2
    sti
    call read_flags
    compare text_sti, 2 + FLAG_INTERRUPT
    push 2
    popfd
    call read_flags
    compare text_popfd, 2
    push 2 + FLAG_INTERRUPT
    popfd
    call read_flags
    compare text_popfd, 2 + FLAG_INTERRUPT
    push 2 + FLAG_IOPL              ; the I/O privilege level too is the kernel's to set
    popfd
    call read_flags
    compare text_iopl, 2 + FLAG_IOPL
    push 2
    popfd
    call read_flags
    compare text_iopl, 2
    say new_line
    ret

read_flags:                         ; -> eax: IF, IOPL and bit 1 of the flags
    pushfd
    pop eax
    and eax, FLAGS_CHECKED
    ret

far_routine:                        ; -> eax: the cs that the far call pushed
    movzx eax, word ptr [esp + 4]
    retf

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 kernel code: base 0, limit 4 GiB, 32 bits, privilege 0, accessed
    .quad 0x00cf93000000ffff        ; 0x10 kernel data
    .quad 0x00cffb000000ffff        ; 0x18 user code: privilege 3
    .quad 0x00cff3000000ffff        ; 0x20 user data
gdt_tss:
    .word TSS_SIZE - 1, tss & 0xffff
    .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
gdt_end:

.align 8
idt: .space 256 * 8                 ; gates that nobody fills stay "not present"
idt_end:

.align 128                          ; so that it lies in one page
tss: .space TSS_SIZE

.align 4
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
.align 4
idt_pointer:
    .word idt_end - idt - 1
    .long idt
.align 4
pointer_read: .space 8

text_check: .asciz "guest: I read back what I loaded:"
text_check_more: .asciz "\nguest: segments:"
text_check_flags: .asciz "\nguest: flags:"
text_gdtr: .asciz " gdtr"
text_idtr: .asciz ", idtr"
text_limit: .asciz ", limit"
text_tr: .asciz ", tr"
text_busy: .asciz ", busy"
text_ldtr: .asciz ", ldtr"
text_msw: .asciz ", msw"
text_cs: .asciz " cs"
text_push_cs: .asciz ", push cs"
text_far_call: .asciz ", far call"
text_ss: .asciz ", ss"
text_lar: .asciz ", lar"
text_lsl: .asciz ", lsl"
text_verr: .asciz ", verr"
text_cli: .asciz " cli"
text_sti: .asciz ", sti"
text_popfd: .asciz ", popfd"
text_iopl: .asciz ", iopl"
new_line: .asciz "\n"
