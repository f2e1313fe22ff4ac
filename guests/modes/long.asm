; long mode: four levels of page tables, 16-byte gates, IST, ring 3, SWAPGS; up from protected mode and down again

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/check64.asm"
.include "common/catch64.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ CODE64, 0x18
.equ ODD_DATA, 0x20                 ; with a base, which 64-bit code ignores
.equ USER_DATA, 0x2b
.equ USER_CODE64, 0x33
.equ TASK, 0x38

.equ EFER, 0xc0000080
.equ EFER_LME, 0x100
.equ EFER_LMA, 0x400
.equ EFER_NXE, 0x800
.equ GS_BASE, 0xc0000101
.equ KERNEL_GS_BASE, 0xc0000102
.equ NX, 1 << 63

.equ WINDOW, 0x40000000             ; the second GiB: what is mapped in other ways than one to one
.equ USER_STACK, WINDOW + 0x2000
.equ READ_ONLY, WINDOW + 0x2000
.equ NOBODY, WINDOW + 0x3000
.equ LARGE, WINDOW + 0x200000       ; a 2 MiB page that must not be executed
.equ GIGANTIC, 0x80000000           ; a 1 GiB page, where the processor has them
.equ HIGHER_HALF, 0xffffff8000000000                ; all of that once more

.code32
start:
    cli
    cld
    mov esp, stack_top
    lgdt [gdt_pointer]
    jmp CODE32:.segments
.segments:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax

    ; The order of the SDM (vol. 3, 10.8.5): PAE, CR3, LME, and PG activates it.
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, pml4
    mov cr3, eax
    mov ecx, EFER
    rdmsr
    or eax, EFER_LME + EFER_NXE
    wrmsr
    rdmsr
    and eax, EFER_LMA
    CHECK 0, "LME alone doesn't activate long mode"
    mov eax, cr0
    or eax, 0x80010000              ; PG, and WP
    mov cr0, eax
    rdmsr
    and eax, EFER_LMA
    CHECK EFER_LMA, "PG activates it"
    jmp CODE64:long

.code64
long:
    lidt [idt64_pointer]
    mov eax, TASK
    ltr ax
    mov rax, 0x123456789abcdef0
    shr rax, 32
    CHECK64 0x12345678, "registers have 64 bits"
    lea rax, [long]
    CHECK64 long, "addresses are relative to RIP"
    mov eax, ODD_DATA
    mov ds, eax
    mov eax, [text_ok]
    CHECK64 0x6b6f203a, "the base of DS is ignored"
    xor eax, eax
    mov ss, eax                     ; fine for ring 0 in 64-bit mode
    mov rax, HIGHER_HALF + .high
    jmp rax
.high:
    lea rax, [.high]
    sar rax, 32
    CHECK64 -0x80, "running in the higher half"
    mov rax, .low
    jmp rax
.low:

    ; 1. Interrupts: SS:RSP is always pushed, from an RSP aligned to 16; IST changes the stack in any case.
    mov rsp, stack_top - 24
    int 0x30
.after_int:
    CAUGHT64 0x300000, "INT goes through a 16-byte gate"
    mov rax, [caught_rip]
    CHECK64 .after_int, "INT pushes the RIP behind it"
    mov rax, [caught_rsp]
    CHECK64 stack_top - 24, "INT pushes RSP in the same ring, too"
    mov rax, [caught_frame]
    CHECK64 stack_top - 32 - 40, "the frame is aligned to 16"
    mov byte ptr [idt64 + 0x31 * 16 + 4], 1
    int 0x31
    mov rax, [caught_frame]
    CHECK64 ist_top - 40, "a gate with IST 1 takes that stack"
    mov rsp, stack_top

    ; 2. An address that is not canonical: neither of the two halves.
    TRY64 .not_canonical
    mov rbx, 0x0000800000000000
    mov al, [rbx]
.not_canonical:
    CAUGHT64 0x0d0000, "a non-canonical address is #GP"

    ; 3. Paging, in ring 0.
    TRY64 .absent
    mov rbx, NOBODY + 5
    mov al, [rbx]
.absent:
    CAUGHT64 0x0e0000, "reading an absent page: #PF, error 0"
    mov rax, [caught_cr2]
    CHECK64 NOBODY + 5, "CR2 holds the address"
    TRY64 .write
    mov rbx, READ_ONLY
    mov byte ptr [rbx], 1
.write:
    CAUGHT64 0x0e0003, "writing a read-only page: error 3"
    TRY64 .execute
    mov rbx, LARGE
    jmp rbx
.execute:
    CAUGHT64 0x0e0011, "executing an NX page: error 0x11"
    mov rax, [caught_rip]
    CHECK64 LARGE, "the fault is at the target"
    and dword ptr [directory2 + 8], ~0x60
    mov rax, cr3
    mov cr3, rax                    ; flush the TLB
    mov rbx, LARGE
    mov al, [rbx]
    mov eax, [directory2 + 8]
    and eax, 0x60
    CHECK64 0x20, "reading a 2M page sets A"
    mov byte ptr [rbx], 0xc3
    mov eax, [directory2 + 8]
    and eax, 0x60
    CHECK64 0x60, "writing sets D"
    mov al, [0x400000]
    movzx eax, al
    CHECK64 0xc3, "both addresses are one memory"
    mov eax, 0x80000001
    cpuid
    bt edx, 26                      ; 1G pages?
    mov eax, 0x1badb002
    jnc .no_1g
    mov rbx, GIGANTIC + multiboot_header
    mov eax, [rbx]
.no_1g:
    CHECK64 0x1badb002, "a 1G page, where there are any"

    ; 4. Ring 3. Everything comes back by an exception or INT 0x80.
    mov byte ptr [idt64 + 0x80 * 16 + 5], 0xee      ; DPL 3
    TRY64 .called
    mov rbx, user_call - user_page + WINDOW
    jmp to_user
.called:
    CAUGHT64 0x800000, "ring 3: INT 0x80"
    mov rax, [caught_cs]
    CHECK64 USER_CODE64, "ring 3: pushes CS"
    mov rax, [caught_ss]
    CHECK64 USER_DATA, "ring 3: pushes SS"
    mov rax, [caught_rsp]
    CHECK64 USER_STACK - 8, "ring 3: pushes RSP"
    mov rax, [caught_frame]
    CHECK64 ring0_top - 40, "the frame is on the TSS's RSP0"
    mov rax, [handler_ss]
    CHECK64 0, "SS is null in the handler"
    TRY64 .user_hlt
    mov rbx, user_hlt - user_page + WINDOW
    jmp to_user
.user_hlt:
    CAUGHT64 0x0d0000, "ring 3: HLT is #GP"
    TRY64 .user_int
    mov rbx, user_int - user_page + WINDOW
    jmp to_user
.user_int:
    mov eax, [caught]               ; not its error code: some emulators have it wrong
    shr eax, 16
    CHECK64 13, "ring 3: INT through a DPL 0 gate is #GP"
    TRY64 .user_swapgs
    mov rbx, user_swapgs - user_page + WINDOW
    jmp to_user
.user_swapgs:
    CAUGHT64 0x0d0000, "ring 3: SWAPGS is #GP"
    TRY64 .user_read
    mov rbx, user_read - user_page + WINDOW
    jmp to_user
.user_read:
    CAUGHT64 0x0e0005, "ring 3: reading a supervisor page: error 5"
    TRY64 .user_execute
    mov rbx, USER_STACK - 16
    jmp to_user
.user_execute:
    CAUGHT64 0x0e0015, "ring 3: executing its NX stack: error 0x15"

    ; 5. SWAPGS exchanges GS's base with an MSR; both may lie anywhere.
    mov ecx, GS_BASE
    mov rax, HIGHER_HALF + first_gs
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov ecx, KERNEL_GS_BASE
    mov eax, second_gs
    xor edx, edx
    wrmsr
    mov eax, gs:[4]
    CHECK64 1, "GS has its base from an MSR"
    swapgs
    mov eax, gs:[4]
    CHECK64 2, "SWAPGS exchanges it"
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov rdx, HIGHER_HALF + first_gs
    sub rax, rdx
    CHECK64 0, "the MSR has the other one"

    ; 6. Down again: compatibility mode, PG off, LME off.
    jmp fword ptr [far_back]

to_user:                            ; to ring 3 at RBX
    push USER_DATA
    push USER_STACK - 8
    push 2
    push USER_CODE64
    push rbx
    iretq

.align 8
far_back:
    .long back
    .word CODE32

.code32
back:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, stack_top
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, EFER
    rdmsr
    and eax, EFER_LMA
    CHECK 0, "clearing PG ends long mode"
    rdmsr
    and eax, ~EFER_LME
    wrmsr
    mov eax, cr4
    and eax, ~0x20
    mov cr4, eax
    jmp finish32

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 32-bit code
    .quad 0x00cf93000000ffff        ; 0x10 32-bit data
    .quad 0x00af9b000000ffff        ; 0x18 64-bit code: L
    .quad 0x00cf93120000ffff        ; 0x20 data with base 0x120000
    .quad 0x00cff3000000ffff        ; 0x28 data of ring 3
    .quad 0x00affb000000ffff        ; 0x30 64-bit code of ring 3
    .word 103, tss & 0xffff         ; 0x38 the TSS, 16 bytes
    .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

first_gs: .long 0, 1
second_gs: .long 0, 2

.align 128
tss:
    .long 0
    .quad ring0_top, 0, 0           ; RSP0 to RSP2
    .quad 0
    .quad ist_top                   ; IST1
    .space 48
    .long 104 << 16                 ; no I/O map
.space 0x18

.align 4096
user_page:                          ; what ring 3 does; mapped at WINDOW
.code64
user_call:
    int 0x80
user_hlt:
    hlt
user_int:
    int 0x30
user_swapgs:
    swapgs
user_read:
    mov ebx, multiboot_header
    mov eax, [rbx]
.align 4096

; Page tables. The first GiB: 16 MiB one to one in 2 MiB pages.
pml4:
    .quad pdpt + 7
    .space 510 * 8
    .quad pdpt + 7
pdpt:
    .quad directory + 3, directory2 + 7
    .quad 0x83 + NX                 ; 1 GiB from 0
    .space 509 * 8
directory:
.rept 8
    .quad \+ * 0x200000 + 0x83
.endr
    .space 504 * 8
directory2:
    .quad table + 7
    .quad 0x400000 + 0x83 + NX
    .space 510 * 8
table:
    .quad user_page + 5             ; code of ring 3, read-only
    .quad user_stack + 7 + NX
    .quad user_stack + 1 + NX       ; once more: read-only, and for ring 0
    .space 509 * 8

user_stack: .space 4096
    .space 1024
ist_top:
    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
