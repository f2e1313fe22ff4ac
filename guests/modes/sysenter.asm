; SYSENTER and SYSEXIT in 32-bit protected mode: into ring 0 and back by three MSRs, without gate, TSS or stack

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/catch32.asm"
.include "common/tss32.asm"

.equ CODE32, 0x08                   ; the order is SYSENTER's: code and data of ring 0, code and data of ring 3
.equ DATA32, 0x10
.equ USER_CODE, 0x1b
.equ USER_DATA, 0x23
.equ TASK, 0x28
.equ BEYOND, 0x1000                 ; behind the end of the GDT

.equ SYSENTER_CS, 0x174
.equ SYSENTER_ESP, 0x175
.equ SYSENTER_EIP, 0x176

.macro WRITE_MSR register, value
    mov ecx, \register
    mov eax, \value
    xor edx, edx
    wrmsr
.endm

.macro RING3 code, eflags, next     ; run `code` in ring 3; what comes back by an exception goes on at `next`
    TRY \next
    mov ebx, \code
    mov ecx, \eflags
    jmp to_user
.endm

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
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    mov byte ptr [idt + 0x80 * 8 + 5], 0xee

    ; 1. A null SYSENTER_CS turns both off.
    WRITE_MSR SYSENTER_CS, 0
    RING3 user_sysenter, 0x202, .null
.null:
    CAUGHT 0x0d0000, "SYSENTER with SYSENTER_CS 0: #GP(0)"
    mov eax, [caught_eip]
    CHECK user_sysenter, "at that instruction"
    TRY .null_exit
    sysexit
.null_exit:
    CAUGHT 0x0d0000, "SYSEXIT with SYSENTER_CS 0: #GP(0)"

    ; 2. There and back.
    WRITE_MSR SYSENTER_CS, CODE32 + 3
    WRITE_MSR SYSENTER_ESP, enter_top
    WRITE_MSR SYSENTER_EIP, enter
    rdmsr
    CHECK enter, "RDMSR reads what WRMSR has written"
    RING3 user_sysenter, 0x246, .entered
.entered:
    CAUGHT 0x800000, "SYSENTER, SYSEXIT, and INT in ring 3"
    mov eax, [seen_cs]
    CHECK CODE32, "SYSENTER: CS, without RPL"
    mov eax, [seen_ss]
    CHECK DATA32, "SYSENTER: SS, the next one"
    mov eax, [seen_esp]
    CHECK enter_top, "SYSENTER: ESP"
    mov eax, [seen_eflags]
    and eax, 0x242
    CHECK 0x42, "SYSENTER clears IF, and leaves ZF alone"
    mov eax, [caught_cs]
    CHECK USER_CODE, "SYSEXIT: CS, the third"
    mov eax, [caught_ss]
    CHECK USER_DATA, "SYSEXIT: SS, the fourth"
    mov eax, [caught_esp]
    CHECK user_top - 16, "SYSEXIT: ESP is ECX"
    mov eax, [caught_eip]
    CHECK user_back.next, "SYSEXIT: EIP is EDX"
    RING3 user_sysexit, 0x202, .user_exit
.user_exit:
    CAUGHT 0x0d0000, "SYSEXIT in ring 3: #GP(0)"

    ; 3. Ring 0 may use it, too. The segments are flat, whatever the GDT says: it isn't read.
    WRITE_MSR SYSENTER_CS, BEYOND
    WRITE_MSR SYSENTER_EIP, .beyond
    push 0x202
    popfd
    sysenter
.beyond:
    mov eax, cs
    mov ecx, ss
    jmp CODE32:.own
.own:
    mov edx, DATA32
    mov ss, edx
    mov esp, stack_top
    CHECK BEYOND, "SYSENTER with CS beyond the GDT"
    mov eax, ecx
    CHECK BEYOND + 8, "and SS"
    pushfd
    pop eax
    and eax, 0x200
    CHECK 0, "IF cleared in ring 0, too"

    ; 4. TF stays: the handler is stepped.
    WRITE_MSR SYSENTER_CS, CODE32
    WRITE_MSR SYSENTER_EIP, enter
    RING3 user_step, 0x002, .stepped
.stepped:
    CAUGHT 0x010000, "SYSENTER with TF: #DB"
    mov eax, [caught_eip]
    CHECK enter, "in the handler"
    mov eax, [caught_cs]
    CHECK CODE32, "in ring 0"
    jmp finish32

to_user:                            ; to ring 3 at EBX with EFLAGS = ECX
    push USER_DATA
    push user_top
    push ecx
    push USER_CODE
    push ebx
    mov eax, USER_DATA              ; or IRET would empty DS
    mov ds, eax
    iret

enter:
    mov [seen_esp], esp
    mov eax, cs
    mov [seen_cs], eax
    mov eax, ss
    mov [seen_ss], eax
    pushfd
    pop dword ptr [seen_eflags]
    mov edx, user_back
    mov ecx, user_top - 16
    sysexit

user_sysenter:
    sysenter
user_back:
    int 0x80
.next:
user_sysexit:
    mov edx, user_back
    mov ecx, user_top
    sysexit
user_step:
    push 0x102
    popfd                           ; TF: traps begin after the next instruction
    sysenter

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
    .quad 0x00cffb000000ffff        ; 0x18 code of ring 3
    .quad 0x00cff3000000ffff        ; 0x20 data of ring 3
    TSS_DESCRIPTOR tss, TSS_SIZE - 1, 0x89          ; 0x28
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

seen_cs: .long 0
seen_ss: .long 0
seen_esp: .long 0
seen_eflags: .long 0

.align 128
tss:
    .long 0, ring0_top, DATA32
    .space TSS_IO_MAP - 12
    .word TSS_SIZE                  ; no I/O map

.align 16
    .space 256
user_top:
    .space 256
enter_top:
    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
