; The self-reporting kernel of the oracles, 32-bit modes (2-level paging and PAE).
;
; The image holds a list of records, one a case. For each: put all tables, stacks and data back as they were, apply
; the record's patches, load control registers, descriptor tables, debug registers, registers and flags, and IRET to
; the case's code. Whatever vector comes next ends the case: the handler writes one line to port 0xe9 and goes on.
; Names in capitals that aren't defined here come from layout.py.

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
    cmp dword ptr [USE_EFER], 0
    je .paging
    mov eax, [BASE_CR4]
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x800               ; NXE
    wrmsr
.paging:
    mov eax, [BASE_CR3]
    mov cr3, eax
    mov eax, BASE_CR0
    mov cr0, eax
    lgdt [gdt_pointer]
    jmp KCODE:.flat
.flat:
    mov eax, KDATA
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax

next_case:
    mov esp, HARNESS_STACK
    xor eax, eax
    mov dr7, eax
    mov dword ptr [reporting], 0

    mov edx, RESTORE_LIST
.restore:
    mov ecx, [edx + 8]
    jecxz .fetch_record
    mov edi, [edx]
    mov esi, [edx + 4]
    rep movsd
    add edx, 12
    jmp .restore

.fetch_record:
    mov eax, BASE_CR0           ; only now: with PAE, these check the PDPTEs
    mov cr0, eax
    mov eax, [BASE_CR4]
    mov cr4, eax
    mov eax, [BASE_CR3]
    mov cr3, eax
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
    jecxz .patched
    mov edi, [esi]
    mov eax, [esi + 4]
    mov [edi], eax
    add esi, 8
    dec ecx
    jmp .patch
.patched:
    mov ax, [record + R_IDT_LIMIT]
    mov [idt_pointer], ax
    lidt [idt_pointer]
    mov ax, [record + R_GDT_LIMIT]
    mov [gdt_pointer], ax
    lgdt [gdt_pointer]
    lldt word ptr [record + R_LDTR]
    ltr word ptr [record + R_TR]
    cmp dword ptr [USE_EFER], 0
    je .no_efer
    mov ecx, 0xc0000080
    mov eax, [record + R_EFER]
    xor edx, edx
    wrmsr
.no_efer:
    mov esi, [record + R_MSRS]
    mov ebx, [record + R_MSR_COUNT]
.msr:
    test ebx, ebx
    jz .msrs_written
    mov ecx, [esi]
    mov eax, [esi + 4]
    mov edx, [esi + 8]
    wrmsr
    add esi, 12
    dec ebx
    jmp .msr
.msrs_written:
    mov eax, [record + R_CR4]
    mov cr4, eax
    mov eax, [record + R_CR3]
    mov cr3, eax                ; the patched page tables count from here
    mov eax, [record + R_CR0]
    mov cr0, eax
    mov eax, CR2_BEFORE
    mov cr2, eax
    xor eax, eax
    mov dr6, eax
    mov eax, [record + R_DR0]
    mov dr0, eax
    mov eax, [record + R_DR1]
    mov dr1, eax
    mov eax, [record + R_DR2]
    mov dr2, eax
    mov eax, [record + R_DR3]
    mov dr3, eax
    mov eax, [record + R_DR7]
    mov dr7, eax

    test byte ptr [record + R_EFLAGS + 2], 2    ; VM
    jnz .virtual8086
    test byte ptr [record + R_CS], 3
    jnz .outer
    mov ss, word ptr [record + R_SS]
    mov esp, [record + R_ESP]
    jmp .frame
.virtual8086:
    push dword ptr [record + R_GS]
    push dword ptr [record + R_FS]
    push dword ptr [record + R_DS]
    push dword ptr [record + R_ES]
    push dword ptr [record + R_SS]
    push dword ptr [record + R_ESP]
    push dword ptr [record + R_EFLAGS]
    push dword ptr [record + R_CS]
    push dword ptr [record + R_EIP]
    jmp .registers
.outer:
    push dword ptr [record + R_SS]
    push dword ptr [record + R_ESP]
.frame:
    push dword ptr [record + R_EFLAGS]
    push dword ptr [record + R_CS]
    push dword ptr [record + R_EIP]
    mov es, word ptr [record + R_ES]
    mov fs, word ptr [record + R_FS]
    mov gs, word ptr [record + R_GS]
.registers:
    mov eax, [record + R_EAX]
    mov ecx, [record + R_ECX]
    mov edx, [record + R_EDX]
    mov ebx, [record + R_EBX]
    mov ebp, [record + R_EBP]
    mov esi, [record + R_ESI]
    mov edi, [record + R_EDI]
    test byte ptr [record + R_EFLAGS + 2], 2
    jnz .enter
    mov ds, word ptr cs:[record + R_DS]
.enter:
    iret

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
    pusha
    push ds
    push es
    push fs
    push gs
    cld
    mov eax, KDATA
    mov ds, eax
    mov es, eax
    mov eax, dr6
    mov [state_dr6], eax
    xor eax, eax
    mov dr7, eax
    mov eax, cr2
    mov [state_cr2], eax
    mov esi, esp
    cmp dword ptr [reporting], 0
    jne lost
    mov dword ptr [reporting], 1
    ; ESI: gs fs es ds | edi esi ebp esp ebx edx ecx eax | vector | what the processor pushed
    mov ax, [esi + 12]
    mov [state_data], ax
    mov ax, [esi + 8]
    mov [state_data + 2], ax
    mov ax, [esi + 4]
    mov [state_more], ax
    mov ax, [esi]
    mov [state_more + 2], ax
    mov eax, [esi + 44]
    mov [state_eax], eax
    mov eax, [esi + 40]
    mov [state_ecx], eax
    mov eax, [esi + 36]
    mov [state_edx], eax
    mov eax, [esi + 32]
    mov [state_ebx], eax
    mov eax, [esi + 24]
    mov [state_ebp], eax
    mov eax, [esi + 20]
    mov [state_esi], eax
    mov eax, [esi + 16]
    mov [state_edi], eax
    mov eax, [esi + 48]
    mov [state_vector], eax
    add esi, 52
    mov [state_esp], esi
    mov edi, state_stack
    mov ecx, 6
    rep movsd

    mov eax, KDATA              ; off the case's stack
    mov ss, eax
    mov esp, HARNESS_STACK
    mov eax, cr3
    cmp eax, [BASE_CR3]
    je .same_tables             ; a case's PDPTEs could be refused
    mov eax, [BASE_CR3]
    mov cr3, eax
.same_tables:
    mov eax, cr0
    cmp eax, BASE_CR0
    je .same_switches
    mov eax, BASE_CR0
    mov cr0, eax
.same_switches:
    push 2                      ; NT is set after a task switch
    popfd
    and dword ptr [state_dr6], 0xe00f

    mov edi, line
    mov eax, [CURRENT]
    sub eax, RECORDS + RECORD_SIZE
    xor edx, edx
    mov ecx, RECORD_SIZE
    div ecx
    mov edx, eax
    mov ecx, 4
    call put_digits
    mov edx, [state_vector]
    mov ecx, 2
    call put_digits
    mov esi, state
.state:
    mov edx, [esi]
    mov ecx, 8
    call put_digits
    add esi, 4
    cmp esi, state_end
    jb .state
    mov esi, [record + R_WATCHES]
    mov ebx, [record + R_WATCH_COUNT]
.watch:
    test ebx, ebx
    jz .write
    mov edx, [esi]
    mov edx, [edx]
    mov ecx, 8
    call put_digits
    add esi, 4
    dec ebx
    jmp .watch
.write:
    mov byte ptr [edi - 1], 10  ; instead of the last blank
    mov ecx, edi
    mov esi, line
    sub ecx, esi
    mov edx, 0xe9
    rep outsb
    jmp next_case

; The lowest ECX digits of EDX and a blank to EDI.
put_digits:
    push esi
    push ecx
    lea esi, [edi + ecx]
    mov byte ptr [esi], ' '
.digit:
    mov eax, edx
    and eax, 15
    mov al, [digits + eax]
    dec esi
    mov [esi], al
    shr edx, 4
    dec ecx
    jnz .digit
    pop ecx
    lea edi, [edi + ecx + 1]
    pop esi
    ret

; An exception while reporting another (a stack that can't be read, say).
lost:
    mov eax, KDATA
    mov ss, eax
    mov esp, HARNESS_STACK
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
.align 4
gdt_pointer: .word GDT_LIMIT
    .long GDT
.align 4
idt_pointer: .word 0
    .long IDT
.align 4
reporting: .long 0
state:
state_esp: .long 0
state_stack: .space 24
state_eax: .long 0
state_ecx: .long 0
state_edx: .long 0
state_ebx: .long 0
state_ebp: .long 0
state_esi: .long 0
state_edi: .long 0
state_data: .long 0             ; DS, ES
state_more: .long 0             ; FS, GS
state_cr2: .long 0
state_dr6: .long 0
state_end:
state_vector: .long 0
record: .space RECORD_SIZE
line: .space 512
