; The self-reporting kernel of the oracles, long mode. What kernel32.asm says holds here, too; a record's fields are
; quadwords, a case's list of patches is the same, and all handlers are 64-bit code.

.origin KERNEL

.align 4
multiboot_header:
    .long 0x1badb002, 0x00010000, 0 - 0x1badb002 - 0x00010000
    .long multiboot_header, multiboot_header, 0, 0, start   ; header, begin, end (whole file), bss, entry

start:
    cli
    cld
    mov al, 0xff                ; no external interrupts: cases run with IF set, too
    out 0x21, al
    out 0xa1, al
    mov esp, HARNESS_STACK
    mov eax, [BASE_CR4]
    mov cr4, eax
    mov ecx, 0xc0000080
    mov eax, EFER_LME | EFER_NXE | EFER_SCE
    xor edx, edx
    wrmsr
    mov eax, [BASE_CR3]
    mov cr3, eax
    mov eax, BASE_CR0
    mov cr0, eax                ; long mode from here, still 32-bit code
    lgdt [gdt_pointer]
    jmp KCODE:long

.code64
long:
next_case:
    mov rsp, HARNESS_STACK
    xor eax, eax
    mov dr7, rax
    mov qword ptr [reporting], rax
    mov eax, KDATA
    mov ds, eax
    mov es, eax
    mov ss, eax

    mov edx, RESTORE_LIST
.restore:
    mov ecx, [rdx + 8]
    jrcxz .fetch_record
    mov edi, [rdx]
    mov esi, [rdx + 4]
    rep movsd
    add rdx, 12
    jmp .restore

.fetch_record:
    mov eax, BASE_CR0
    mov cr0, rax
    mov eax, [BASE_CR4]
    mov cr4, rax
    mov eax, [BASE_CR3]
    mov cr3, rax
    mov esi, [CURRENT]
    cmp esi, [RECORDS_END]
    jae finish
    add dword ptr [CURRENT], RECORD_SIZE
    mov edi, record
    mov ecx, RECORD_SIZE / 4
    rep movsd

    mov esi, [record + R_CODE]
    mov ecx, [record + R_CODE_SIZE]
    mov edi, CODE
    rep movsb
    mov esi, [record + R_PATCHES]
    mov ecx, [record + R_PATCH_COUNT]
.patch:
    jrcxz .patched
    mov edi, [rsi]
    mov eax, [rsi + 4]
    mov [rdi], eax
    add rsi, 8
    dec ecx
    jmp .patch
.patched:
    mov ax, [record + R_IDT_LIMIT]
    mov [idt_pointer], ax
    lidt [idt_pointer]
    mov ax, [record + R_GDT_LIMIT]
    mov [gdt_pointer], ax
    lgdt [gdt_pointer]
    mov ax, [record + R_LDTR]
    lldt ax
    mov ax, [record + R_TR]
    ltr ax
    mov ecx, 0xc0000080
    mov eax, [record + R_EFER]
    xor edx, edx
    wrmsr
    mov rax, [record + R_CR4]
    mov cr4, rax
    mov rax, [record + R_CR3]
    mov cr3, rax                ; the patched page tables count from here
    mov rax, [record + R_CR0]
    mov cr0, rax
    mov eax, CR2_BEFORE
    mov cr2, rax
    xor eax, eax
    mov dr6, rax
    mov rax, [record + R_DR0]
    mov dr0, rax
    mov rax, [record + R_DR1]
    mov dr1, rax
    mov rax, [record + R_DR2]
    mov dr2, rax
    mov rax, [record + R_DR3]
    mov dr3, rax
    mov rax, [record + R_DR7]
    mov dr7, rax

    mov ax, [record + R_DS]
    mov ds, ax
    mov ax, [record + R_ES]
    mov es, ax
    mov ax, [record + R_FS]
    mov fs, ax
    mov ax, [record + R_GS]
    mov gs, ax
    mov esi, [record + R_MSRS]  ; behind the segments: bases are among them
    mov ebx, [record + R_MSR_COUNT]
.msr:
    test ebx, ebx
    jz .frame
    mov ecx, [rsi]
    mov eax, [rsi + 4]
    mov edx, [rsi + 8]
    wrmsr
    add rsi, 12
    dec ebx
    jmp .msr
.frame:
    push qword ptr [record + R_SS]
    push qword ptr [record + R_ESP]
    push qword ptr [record + R_EFLAGS]
    push qword ptr [record + R_CS]
    push qword ptr [record + R_EIP]
    mov rax, [record + R_EAX]
    mov rcx, [record + R_ECX]
    mov rdx, [record + R_EDX]
    mov rbx, [record + R_EBX]
    mov rbp, [record + R_EBP]
    mov rsi, [record + R_ESI]
    mov rdi, [record + R_EDI]
    mov r8, [record + R_R8]
    mov r9, [record + R_R9]
    mov r10, [record + R_R10]
    mov r11, [record + R_R11]
    mov r12, [record + R_R12]
    mov r13, [record + R_R13]
    mov r14, [record + R_R14]
    mov r15, [record + R_R15]
    iretq

; ---- the end of a case ----

.align 16
stubs:
.rept 256
    .byte 0x68                  ; push imm32
    .long \+
    .byte 0xe9                  ; jmp rel32: all stubs have the same size
    .long common - $ - 4
.endr

common:
    cmp dword ptr [reporting], 0
    jne lost
    mov dword ptr [reporting], 1
    mov [state_eax], rax
    mov [state_ecx], rcx
    mov [state_edx], rdx
    mov [state_ebx], rbx
    mov [state_ebp], rbp
    mov [state_esi], rsi
    mov [state_edi], rdi
    mov [state_r8], r8
    mov [state_r9], r9
    mov [state_r10], r10
    mov [state_r11], r11
    mov [state_r12], r12
    mov [state_r13], r13
    mov [state_r14], r14
    mov [state_r15], r15
    xor eax, eax
    mov ax, ds
    mov [state_data], ax
    mov ax, es
    mov [state_data + 2], ax
    mov ax, fs
    mov [state_more], ax
    mov ax, gs
    mov [state_more + 2], ax
    mov ax, ss
    mov [state_ss], ax
    mov rax, cr2
    mov [state_cr2], rax
    mov rax, dr6
    and eax, 0xe00f
    mov [state_dr6], rax
    xor eax, eax
    mov dr7, rax
    cld
    mov rsi, rsp                ; vector | what the processor pushed
    mov rax, [rsi]
    mov [state_vector], rax
    add rsi, 8
    mov [state_esp], rsi
    mov edi, state_stack
    mov ecx, 6
    rep movsq
    mov eax, KDATA              ; off the case's stack
    mov ss, eax
    mov rsp, HARNESS_STACK
    mov eax, [BASE_CR3]
    mov cr3, rax
    mov eax, BASE_CR0
    mov cr0, rax
    push 2
    popfq
    mov ecx, 0xc0000100         ; FS.base, GS.base, KERNEL_GS_BASE
    mov edi, state_bases
.base:
    rdmsr
    mov [rdi], eax
    mov [rdi + 4], edx
    add rdi, 8
    inc ecx
    cmp ecx, 0xc0000103
    jb .base

    mov edi, line
    mov eax, [CURRENT]
    sub eax, RECORDS + RECORD_SIZE
    xor edx, edx
    mov ecx, RECORD_SIZE
    div ecx
    mov edx, eax
    mov ecx, 4
    call put_digits
    mov rdx, [state_vector]
    mov ecx, 2
    call put_digits
    mov esi, state
.state:
    mov rdx, [rsi]
    mov ecx, 16
    call put_digits
    add rsi, 8
    cmp esi, state_end
    jb .state
    mov esi, [record + R_WATCHES]
    mov ebx, [record + R_WATCH_COUNT]
.watch:
    test ebx, ebx
    jz .write
    mov edx, [rsi]
    mov edx, [rdx]
    mov ecx, 8
    call put_digits
    add rsi, 4
    dec ebx
    jmp .watch
.write:
    mov byte ptr [rdi - 1], 10  ; instead of the last blank
    mov rcx, rdi
    mov esi, line
    sub rcx, rsi
    mov edx, 0xe9
    rep outsb
    jmp next_case

; The lowest ECX digits of RDX and a blank to EDI.
put_digits:
    push rsi
    push rcx
    lea rsi, [rdi + rcx]
    mov byte ptr [rsi], ' '
.digit:
    mov eax, edx
    and eax, 15
    mov al, [rax + digits]
    dec rsi
    mov [rsi], al
    shr rdx, 4
    dec ecx
    jnz .digit
    pop rcx
    lea rdi, [rdi + rcx + 1]
    pop rsi
    ret

; An exception while reporting another (a stack that can't be read, say).
lost:
    cld
    mov rsp, HARNESS_STACK
    mov esi, lost_text
    mov ecx, 5
    mov edx, 0xe9
    rep outsb
    jmp next_case

finish:
    mov esi, end_text
    mov ecx, 4
    mov edx, 0xe9
    rep outsb
    xor eax, eax                ; QEMU and hvproto end here
    out 0xf4, al
    mov edx, 0x8900             ; Bochs here
    mov esi, shutdown_text
    mov ecx, 8
    rep outsb
.stop:
    cli
    hlt
    jmp .stop

digits: .ascii "0123456789abcdef"
lost_text: .ascii "lost\n"
end_text: .ascii "end\n"
shutdown_text: .ascii "Shutdown"
.align 8
gdt_pointer: .word GDT_LIMIT
    .quad GDT
.align 8
idt_pointer: .word 0
    .quad IDT
.align 8
reporting: .quad 0
state:
state_esp: .quad 0
state_stack: .space 48
state_eax: .quad 0
state_ecx: .quad 0
state_edx: .quad 0
state_ebx: .quad 0
state_ebp: .quad 0
state_esi: .quad 0
state_edi: .quad 0
state_r8: .quad 0
state_r9: .quad 0
state_r10: .quad 0
state_r11: .quad 0
state_r12: .quad 0
state_r13: .quad 0
state_r14: .quad 0
state_r15: .quad 0
state_data: .word 0, 0          ; DS, ES
state_more: .word 0, 0          ; FS, GS
state_ss: .quad 0
state_cr2: .quad 0
state_dr6: .quad 0
state_bases: .space 24
state_end:
state_vector: .quad 0
record: .space RECORD_SIZE
line: .space 1024
