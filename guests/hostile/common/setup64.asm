; The same for 64 bits: long mode with 2 MiB one to one, open to ring 3, and an IDT for all 256 vectors.
;
; Every handler prints its vector on port 0xe9 and goes to [resume] at ring 0 with a fresh stack; if that is 0, the kernel
; is over, and the vector is the value written to the debug exit port.

.origin 0x100000
.entry start

.equ CODE0, 0x08
.equ DATA0, 0x10
.equ CODE3, 0x1b
.equ DATA3, 0x23
.equ TASK, 0x28
.equ KERNEL_STACK, 0x190000
.equ USER_STACK, 0x198000
.equ PML4, 0x1a0000
.equ POINTERS, 0x1a1000
.equ DIRECTORY, 0x1a2000
.equ TABLE, 0x1a3000
.equ STUBS, 0x1b0000
.equ IDT, 0x1b8000
.equ SCRATCH, 0x1c0000

.macro RESUME next
    mov dword ptr [resume], \next
.endm

.macro END value
    mov al, \value
    out 0xf4, al
    hlt
.endm

.macro RING3 label
    push DATA3
    push USER_STACK
    push 2
    push CODE3
    push \label
    iretq
.endm

.code32
start:
    cli
    cld
    mov edi, TABLE
    mov eax, 7
1:
    stosd
    mov dword ptr [edi], 0
    add edi, 4
    add eax, 0x1000
    cmp eax, 0x200000
    jb 1b
    mov dword ptr [PML4], POINTERS + 7
    mov dword ptr [POINTERS], DIRECTORY + 7
    mov dword ptr [DIRECTORY], TABLE + 7
    mov eax, PML4
    mov cr3, eax
    mov eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    mov eax, 0x900                  ; LME, NXE
    xor edx, edx
    wrmsr
    mov eax, 0x80010011
    mov cr0, eax
    lgdt [gdt_pointer]
    jmp CODE0:wide
.align 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
    .quad 0x0000890000000067 + ((tss & 0xffffff) << 16), 0
    .space 16 * 8
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt, 0
idt_pointer:
    .word 0xfff
    .long IDT, 0
.align 8
resume: .quad 0
tss:
    .long 0, KERNEL_STACK, 0
    .space 0x5a
    .word 0x68

.code64
wide:
    mov eax, DATA0
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, KERNEL_STACK
    mov edi, STUBS
    mov esi, IDT
    xor ecx, ecx
1:
    mov byte ptr [rdi], 0x68
    mov [rdi + 1], ecx
    mov byte ptr [rdi + 5], 0xe9
    mov eax, catch - 10
    sub eax, edi
    mov [rdi + 6], eax
    mov eax, edi
    and eax, 0xffff
    or eax, CODE0 << 16
    mov [rsi], eax
    mov eax, edi
    and eax, 0xffff0000
    or eax, 0xee00
    mov [rsi + 4], eax
    mov qword ptr [rsi + 8], 0
    add edi, 16
    add esi, 16
    inc ecx
    cmp ecx, 256
    jb 1b
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    jmp attack

catch:
    pop rax
    mov ecx, DATA0
    mov ss, ecx
    mov ds, ecx
    mov es, ecx
    mov esp, KERNEL_STACK
    cld
    movzx ebx, al
    mov eax, ebx
    shr eax, 4
    call digit
    mov eax, ebx
    and eax, 15
    call digit
    mov al, 0x20
    out 0xe9, al
    mov rcx, [resume]
    test rcx, rcx
    jz 2f
    jmp rcx
2:
    mov al, bl
    out 0xf4, al
    hlt

digit:
    add al, 0x30
    cmp al, 0x3a
    jb 3f
    add al, 39
3:
    out 0xe9, al
    ret
