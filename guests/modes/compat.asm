; compatibility mode: 16-bit and 32-bit code below a 64-bit kernel, and the ways between the three

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/longmode.asm"
.include "common/check64.asm"
.include "common/catch64.asm"

.equ CODE32, 0x08
.equ CODE64, 0x10                   ; also what SYSCALL and SYSENTER load; data must follow
.equ DATA32, 0x18
.equ USER_CODE32, 0x23              ; what SYSRET loads: 32-bit code, data, 64-bit code
.equ USER_DATA, 0x2b
.equ USER_CODE64, 0x33
.equ TASK, 0x38
.equ CODE16, 0x48
.equ DATA16, 0x50
.equ ODD_DATA, 0x58                 ; data with base part16
.equ BASE16, part16

.equ SYSENTER_CS, 0x174
.equ SYSENTER_ESP, 0x175
.equ SYSENTER_EIP, 0x176
.equ EFER, 0xc0000080
.equ STAR, 0xc0000081
.equ LSTAR, 0xc0000082
.equ FMASK, 0xc0000084

.macro WRITE_MSR register, low, high
    mov ecx, \register
    mov eax, \low
    mov edx, \high
    wrmsr
.endm

.macro RING3 code, selector, next   ; run `code` in ring 3; what comes back from there goes on at `next`
    TRY64 \next
    mov ebx, \code
    mov ecx, \selector
    jmp to_user
.endm

.code32
start:
    cli
    cld
    mov al, 0xff                    ; no interrupts from devices
    out 0x21, al
    out 0xa1, al
    mov esp, stack_top
    lgdt [gdt_pointer]
    jmp CODE32:.segments
.segments:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    call enter_long_mode

    ; 1. 32-bit code in long mode.
    mov eax, 5
    .byte 0x48                      ; DEC EAX here, a REX prefix in 64-bit code
    nop
    CHECK 4, "compatibility mode: 0x48 is DEC EAX"
    mov ebx, 0xfffffff0
    mov eax, [ebx + multiboot_header + 16]
    CHECK 0x1badb002, "addresses wrap at 4 GiB"
    mov eax, ODD_DATA
    mov ds, eax
    mov eax, [magic16 - part16]
    mov ecx, DATA32
    mov ds, ecx
    CHECK 0x16161616, "the base of DS counts"
    call CODE64:routine64           ; pushes 8 bytes; a 32-bit RETF comes back
    CHECK 6, "far CALL to 64-bit code and back"
    mov ebx, esp
    call CODE64:returns_quadword
    CHECK 7, "back by a 64-bit RETF"
    mov eax, esp
    sub eax, ebx
    CHECK 0, "with ESP where it was"
    jmp CODE64:long

.code64
routine64:
    mov eax, 5
    .byte 0x48
    nop                             ; REX.W NOP
    inc eax
    retf
returns_quadword:
    mov eax, [rsp]                  ; what the call pushed, but 8 bytes each
    mov edx, [rsp + 4]
    add rsp, 8
    push rdx
    push rax
    mov eax, 7
    retfq
long:
    lidt [idt64_pointer]
    mov eax, TASK
    ltr ax
    call fword ptr [to_routine32]
    CHECK64 0x1badb002, "64-bit code: far CALL to 32-bit code and back"
    mov [kept_rsp], rsp
    jmp fword ptr [to_code32]

    ; 2. Interrupts of 32-bit and 16-bit code come to 64-bit handlers.
.code32
code32:
    int 0x30
.after_int:
    mov eax, [caught]
    CHECK 0x300000, "INT in 32-bit code, and back by IRETQ"
    mov eax, [caught_rip]
    CHECK .after_int, "pushes EIP"
    mov eax, [caught_rip + 4]
    CHECK 0, "as 8 bytes"
    mov eax, [caught_cs]
    CHECK CODE32, "and CS"
    mov eax, [caught_ss]
    CHECK DATA32, "and SS, in the same ring, too"
    mov dword ptr [resume], .page_fault
    mov [resume_rsp], esp
.fault:
    mov eax, [0xfffffff0]
.code64
.page_fault:
    CAUGHT64 0x0e0000, "#PF in 32-bit code"
    mov rax, [caught_rip]
    CHECK64 .fault, "at that instruction"
    mov rax, [caught_cr2]
    ror rax, 4
    CHECK64 0x0fffffff, "CR2 isn't sign-extended"
    jmp fword ptr [to_code16]

.align 16
.code16
part16:
.include "common/check16.asm"
magic16: .long 0x16161616
code16:
    mov ax, DATA16
    mov ds, ax
    mov ss, ax
    mov sp, stack16_top - part16
    mov ax, 0x7fff
    inc ax                          ; 0x40: INC AX here
    CHECK16 0x8000, "16-bit code"
    mov bx, 0xfff0
    mov ax, [bx + magic16 - part16 + 16]
    CHECK16 0x1616, "addresses wrap at 64 KiB"
    push cs
    call far16                      ; as a far call
    CHECK16 CODE16, "far CALL and RETF with 16-bit offsets"
    int 0x30
.after_int:
    mov ax, sp
    CHECK16 stack16_top - part16, "INT and IRETQ: SP is where it was"
    jmp dword CODE64:from16
far16:
    mov ax, cs
    retf

.code64
from16:
    mov eax, DATA32
    mov ds, eax
    mov ss, eax
    mov rsp, [kept_rsp]
    movzx eax, word ptr [check_number16]
    add [check_number], eax
    mov rax, [caught_cs]
    CHECK64 CODE16, "INT in 16-bit code pushes CS"
    mov rax, [caught_rip]
    CHECK64 code16.after_int - part16, "and IP"

    ; 3. Ring 3, with 32 and 64 bits.
    mov byte ptr [idt64 + 0x80 * 16 + 5], 0xee
    RING3 user32, USER_CODE32, .user32
.user32:
    CAUGHT64 0x800000, "ring 3, 32 bits: INT 0x80"
    mov rax, [caught_cs]
    CHECK64 USER_CODE32, "pushes CS"
    mov rax, [caught_frame]
    CHECK64 ring0_top - 40, "5 times 8 bytes on the stack of the TSS"
    mov rax, [caught_rax]
    CHECK64 0, "DEC EAX there"
    RING3 user32_hlt, USER_CODE32, .user32_hlt
.user32_hlt:
    CAUGHT64 0x0d0000, "HLT is #GP(0)"
    RING3 user64, USER_CODE64, .user64
.user64:
    mov rax, [caught_rax]
    CHECK64 1, "ring 3, 64 bits: a REX prefix there"

    ; 4. SYSCALL, and back to 32-bit or 64-bit code.
    mov ecx, EFER
    rdmsr
    or eax, 1                       ; SCE
    wrmsr
    WRITE_MSR STAR, 0, (USER_CODE32 << 16) + CODE64
    WRITE_MSR LSTAR, syscall_entry, 0
    WRITE_MSR FMASK, 0x200, 0
    RING3 user_syscall, USER_CODE64, .syscall
.syscall:
    CAUGHT64 0x800000, "SYSCALL from 64-bit code, SYSRET to 32-bit code"
    mov rax, [caught_cs]
    CHECK64 USER_CODE32, "CS is 32-bit code of ring 3"
    mov rax, [caught_ss]
    CHECK64 USER_DATA, "SS is its data"
    mov rax, [caught_rip]
    CHECK64 user32_after.end, "EIP is what ECX was"
    mov rax, [seen_cs]
    CHECK64 CODE64, "CS was the kernel's meanwhile"

    ; 5. SYSENTER. In long mode AMD's processors have none: #UD there.
    mov eax, 0
    cpuid
    mov dword ptr [wanted], 0x5e0000
    cmp ebx, 0x68747541             ; "Auth"enticAMD
    jne .intel
    mov dword ptr [wanted], 0x060000
.intel:
    WRITE_MSR SYSENTER_CS, CODE64, 0
    WRITE_MSR SYSENTER_ESP, ring0_top, 0
    WRITE_MSR SYSENTER_EIP, sysenter_entry, 0
    RING3 user_sysenter, USER_CODE64, .sysenter
.sysenter:
    mov eax, [caught]
    sub eax, [wanted]
    CHECK64 0, "SYSENTER from 64-bit code"
    mov eax, [wanted]
    sub eax, 0x5e0000
    jne .amd                        ; not tried there: some emulators enter all the same
    RING3 user_sysenter, USER_CODE32, .sysenter32
.sysenter32:
    mov eax, [caught]
    sub eax, 0x5e0000
    jmp .compare
.amd:
    xor eax, eax
.compare:
    CHECK64 0, "SYSENTER from 32-bit code"
    jmp fword ptr [to_finish]

to_user:                            ; to ring 3 at ECX:RBX
    push USER_DATA
    push user_top
    push 2
    push rcx
    push rbx
    mov ecx, USER_DATA
    mov ds, ecx
    mov eax, 1
    iretq

syscall_entry:
    mov eax, cs
    mov [seen_cs], eax
    mov ecx, user32_after
    sysret                          ; the form without REX: to 32-bit code

sysenter_entry:                     ; CS, SS and RSP are from the MSRs
    mov eax, cs
    mov ecx, ss
    sub eax, CODE64
    sub ecx, DATA32
    or eax, ecx
    mov rcx, rsp
    sub rcx, ring0_top
    or eax, ecx
    or eax, 0x5e0000
    mov [caught], eax
    mov rsp, [resume_rsp]
    mov eax, [resume]
    jmp rax

user_sysenter:
    sysenter
user_syscall:
    syscall
user64:
    .byte 0x48
    nop
    int 0x80
.code32
user32:
    .byte 0x48
    nop
user32_after:
    int 0x80
.end:
user32_hlt:
    hlt

routine32:
    mov eax, [multiboot_header]
    retf

finish:
    mov eax, DATA32
    mov ss, eax
    jmp finish32

.align 8
to_routine32: .long routine32, CODE32
to_code32: .long code32, CODE32
to_code16: .long code16 - part16, CODE16
to_finish: .long finish, CODE32
kept_rsp: .quad 0
seen_cs: .long 0
wanted: .long 0

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 32-bit code
    .quad 0x00af9b000000ffff        ; 0x10 64-bit code: L
    .quad 0x00cf93000000ffff        ; 0x18 data
    .quad 0x00cffb000000ffff        ; 0x20 32-bit code of ring 3
    .quad 0x00cff3000000ffff        ; 0x28 data of ring 3
    .quad 0x00affb000000ffff        ; 0x30 64-bit code of ring 3
    .word 103, tss & 0xffff         ; 0x38 the TSS, 16 bytes
    .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
    .quad 0
    .word 0xffff, part16 & 0xffff, 0x9b00 + (part16 >> 16), 0           ; 0x48 16-bit code, 64 KiB from part16
    .word 0xffff, part16 & 0xffff, 0x9300 + (part16 >> 16), 0           ; 0x50 16-bit data
    .word 0xffff, part16 & 0xffff, 0x9300 + (part16 >> 16), 0x00cf      ; 0x58 32-bit data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

.align 128
tss:
    .long 0
    .quad ring0_top
    .space 90
    .word 104                       ; no I/O map
.align 16
    .space 256
stack16_top:
    .space 256
user_top:
    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
