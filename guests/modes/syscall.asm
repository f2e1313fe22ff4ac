; SYSCALL and SYSRET in long mode: into ring 0 and back by MSRs, with the flags in R11 and a mask for them

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/longmode.asm"
.include "common/check64.asm"
.include "common/catch64.asm"

.equ CODE32, 0x08
.equ CODE64, 0x10                   ; what SYSCALL loads; data must follow
.equ DATA32, 0x18
.equ USER_CODE32, 0x23              ; what SYSRET loads: 32-bit code, data, 64-bit code
.equ USER_DATA, 0x2b
.equ USER_CODE64, 0x33
.equ TASK, 0x38

.equ EFER, 0xc0000080
.equ STAR, 0xc0000081
.equ LSTAR, 0xc0000082
.equ FMASK, 0xc0000084
.equ FLAG_CF, 0x001
.equ FLAG_TF, 0x100
.equ FLAG_IF, 0x200
.equ FLAG_DF, 0x400
.equ FLAG_AC, 0x40000

.macro WRITE_MSR register, low, high
    mov ecx, \register
    mov eax, \low
    mov edx, \high
    wrmsr
.endm

.macro RING3 code, eflags, next     ; run `code` in ring 3; what comes back by an exception goes on at `next`
    TRY64 \next
    mov ebx, \code
    mov r11d, \eflags
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
    jmp CODE64:long

.code64
long:
    lidt [idt64_pointer]
    mov eax, TASK
    ltr ax
    mov byte ptr [idt64 + 0x80 * 16 + 5], 0xee
    WRITE_MSR STAR, 0, (USER_CODE32 << 16) + CODE64
    WRITE_MSR LSTAR, entry, 0
    WRITE_MSR FMASK, FLAG_IF + FLAG_TF + FLAG_DF, 0

    ; 1. EFER.SCE is off after reset.
    RING3 user_syscall, 2, .disabled
.disabled:
    CAUGHT64 0x060000, "SYSCALL without EFER.SCE: #UD"
    TRY64 .sysret_disabled
    sysretq
.sysret_disabled:
    CAUGHT64 0x060000, "SYSRET without EFER.SCE: #UD"
    mov ecx, EFER
    rdmsr
    or eax, 1
    wrmsr

    ; 2. SYSCALL.
    RING3 user_syscall, FLAG_AC + FLAG_IF + FLAG_DF + FLAG_CF + 2, .syscall
.syscall:
    CAUGHT64 0x800000, "SYSCALL, SYSRET, and INT in ring 3"
    mov rax, [seen_rcx]
    CHECK64 user_after, "SYSCALL: RCX is the RIP behind it"
    mov rax, [seen_r11]
    CHECK64 FLAG_AC + FLAG_IF + FLAG_DF + FLAG_CF + 2, "R11 is RFLAGS"
    mov rax, [seen_rflags]
    and eax, ~FLAG_CF               ; not CF: some emulators lose the arithmetic flags, too
    CHECK64 FLAG_AC + 2, "RFLAGS lose the bits of FMASK, and no other"
    mov rax, [seen_cs]
    CHECK64 CODE64, "CS is from STAR"
    mov rax, [seen_ss]
    CHECK64 DATA32, "SS is the next one"
    mov rax, [seen_rsp]
    CHECK64 user_top, "RSP is still the caller's"

    ; 3. SYSRET.
    mov rax, [caught_cs]
    CHECK64 USER_CODE64, "SYSRET: CS is STAR's + 16"
    mov rax, [caught_ss]
    CHECK64 USER_DATA, "SS is STAR's + 8"
    mov rax, [caught_rip]
    CHECK64 user_after.next, "RIP is RCX"
    mov rax, [caught_flags]
    and eax, FLAG_IF + FLAG_DF + FLAG_CF
    CHECK64 FLAG_IF + FLAG_DF + FLAG_CF, "RFLAGS is R11"
    RING3 user_sysret, 2, .user_sysret
.user_sysret:
    CAUGHT64 0x0d0000, "SYSRET in ring 3: #GP(0)"

    ; 4. Ring 0 may SYSCALL, too; SYSRET then takes it to ring 3.
    TRY64 .from_ring0
    syscall
    jmp user_after
.from_ring0:
    CAUGHT64 0x800000, "SYSCALL in ring 0"
    mov rax, [caught_cs]
    CHECK64 USER_CODE64, "SYSRET goes to ring 3 all the same"

    ; 5. TF, where FMASK doesn't clear it. (Where it does, the processor isn't stepped, but not all emulators know.)
    WRITE_MSR FMASK, 0, 0
    RING3 user_step, 2, .stepped_entry
.stepped_entry:
    CAUGHT64 0x010000, "SYSCALL with TF: #DB"
    mov rax, [caught_rip]
    CHECK64 entry, "in the kernel"
    mov rax, [caught_flags]
    and eax, FLAG_TF
    CHECK64 FLAG_TF, "with TF still set"

    ; 6. LSTAR has 64 bits.
    WRITE_MSR LSTAR, 0, 0xffff8000
    mov ecx, LSTAR
    rdmsr
    movsxd rax, edx
    CHECK64 -0x8000, "LSTAR has 64 bits"
    RING3 user_syscall, 2, .far_away
.far_away:
    CAUGHT64 0x0e0000, "SYSCALL to an address that nobody has mapped: #PF in ring 0"
    mov rax, [caught_rip]
    sar rax, 47
    CHECK64 -1, "at that address"
    mov rax, [caught_rsp]
    CHECK64 user_top, "on the caller's stack"
    jmp fword ptr [to_finish]

to_user:                            ; to ring 3 at RBX with RFLAGS = R11
    push USER_DATA
    push user_top
    push r11
    push USER_CODE64
    push rbx
    iretq

entry:
    mov [seen_rcx], rcx
    mov [seen_r11], r11
    mov [seen_rsp], rsp
    mov eax, cs
    mov [seen_cs], rax
    mov eax, ss
    mov [seen_ss], rax
    mov rsp, entry_top
    pushfq
    pop qword ptr [seen_rflags]
    mov rsp, [seen_rsp]
    sysretq

user_syscall:
    syscall
user_after:
    int 0x80
.next:
user_sysret:
    mov ecx, user_after
    sysretq
user_step:
    push FLAG_TF + 2
    popfq                           ; traps begin after the next instruction
    syscall
    int 0x80

.code32
finish:
    mov eax, DATA32                 ; IRETQ to ring 3 has emptied DS
    mov ds, eax
    mov ss, eax
    jmp finish32

.align 8
to_finish: .long finish, CODE32
seen_rcx: .quad 0
seen_r11: .quad 0
seen_rsp: .quad 0
seen_cs: .quad 0
seen_ss: .quad 0
seen_rflags: .quad 0

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
user_top:
    .space 256
entry_top:
    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
