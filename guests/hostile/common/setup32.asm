; What the hostile kernels of 32 bits begin with: flat segments, a TSS, an IDT for all 256 vectors, and, on request, paging.
;
; Every handler prints its vector on port 0xe9. Then it goes to [resume], at ring 0 with a fresh stack; if that is 0, the
; kernel is over, and the vector is the value written to the debug exit port. Memory: 2 MiB.

.origin 0x100000
.entry start

.equ CODE0, 0x08
.equ DATA0, 0x10
.equ CODE3, 0x1b
.equ DATA3, 0x23
.equ TASK, 0x28
.equ KERNEL_STACK, 0x190000
.equ USER_STACK, 0x198000
.equ DIRECTORY, 0x1a0000
.equ TABLE, 0x1a1000
.equ STUBS, 0x1b0000
.equ IDT, 0x1b8000
.equ SCRATCH, 0x1c0000

.macro RESUME next
    mov dword ptr [resume], \next
.endm

.macro TRY next, code               ; whatever it comes to, it goes on at the label
    RESUME \next
    \code
\next:
.endm

.macro END value                    ; a good end
    mov al, \value
    out 0xf4, al
    hlt
.endm

.macro RING3 label                  ; go there at ring 3, with IOPL 0
    push DATA3
    push USER_STACK
    push 2
    push CODE3
    push \label
    iretd
.endm

start:
    cli
    cld
    mov esp, KERNEL_STACK
    lgdt [gdt_pointer]
    jmp CODE0:reloaded
.align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .quad 0x0000890000000067 + ((tss & 0xffffff) << 16)
    .space 16 * 8                   ; for the kernel's own use, from 0x30 on
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
idt_pointer:
    .word 0x7ff
    .long IDT
.align 8
resume: .long 0
tss:
    .long 0, KERNEL_STACK, DATA0
    .space 0x58
    .word 0, 0x68
reloaded:
    mov eax, DATA0
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov edi, STUBS                  ; push n; jmp catch: 16 bytes each
    mov esi, IDT
    xor ecx, ecx
1:
    mov byte ptr [edi], 0x68
    mov [edi + 1], ecx
    mov byte ptr [edi + 5], 0xe9
    mov eax, catch - 10
    sub eax, edi
    mov [edi + 6], eax
    mov eax, edi
    and eax, 0xffff
    or eax, CODE0 << 16
    mov [esi], eax
    mov eax, edi
    and eax, 0xffff0000
    or eax, 0xee00
    mov [esi + 4], eax
    add edi, 16
    add esi, 8
    inc ecx
    cmp ecx, 256
    jb 1b
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    jmp attack

catch:
    pop eax
    mov ebx, DATA0
    mov ds, ebx
    mov es, ebx
    mov ss, ebx
    mov esp, KERNEL_STACK
    cld
    mov ebx, eax
    shr eax, 4
    call digit
    mov eax, ebx
    and eax, 15
    call digit
    mov al, 0x20
    out 0xe9, al
    mov ecx, [resume]
    test ecx, ecx
    jz 2f
    jmp ecx
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

start_paging:                       ; 2 MiB one to one, everything open to ring 3
    mov edi, TABLE
    mov eax, 7
4:
    stosd
    add eax, 0x1000
    cmp eax, 0x200000
    jb 4b
    mov dword ptr [DIRECTORY], TABLE + 7
    mov eax, DIRECTORY
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    ret
