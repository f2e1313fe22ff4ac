; 32-bit protected mode without paging: gates of all kinds, rings 3 and 0, and the error codes of a segment's faults

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/catch32.asm"
.include "common/tss32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ USER_CODE, 0x1b
.equ USER_DATA, 0x23
.equ TASK, 0x28
.equ DOUBLE_FAULT_TASK, 0x30
.equ CALL_GATE, 0x38
.equ CONFORMING, 0x40
.equ ABSENT_DATA, 0x48
.equ ABSENT_TSS, 0x50
.equ SHORT_TSS, 0x58
.equ EXECUTE_ONLY, 0x60
.equ BEYOND, 0x1000                 ; behind the end of the GDT

.macro RING3 code, next             ; run `code` in ring 3; what comes back from there goes on at `next`
    TRY \next
    mov ebx, \code
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

    ; 1. Interrupt gates clear IF, trap gates don't.
    push 0x202
    popfd
    int 0x40
    cli
    mov eax, [handler_flags]
    and eax, 0x200
    CHECK 0, "an interrupt gate clears IF"
    GATE 0x40, CODE32, stubs + 0x40 * STUB, 0x8f
    push 0x202
    popfd
    int 0x40
    cli
    mov eax, [handler_flags]
    and eax, 0x200
    CHECK 0x200, "a trap gate leaves IF alone"

    ; 2. The error code is the selector, or for the IDT vector * 8 + 2.
    mov eax, ABSENT_DATA
    TRY .absent
    mov ds, eax
.absent:
    CAUGHT 0x0b0000 + ABSENT_DATA, "MOV DS, not present: #NP(selector)"
    mov eax, ABSENT_DATA
    TRY .absent_stack
    mov ss, eax
.absent_stack:
    CAUGHT 0x0c0000 + ABSENT_DATA, "MOV SS, not present: #SS(selector)"
    mov eax, BEYOND + 3
    TRY .beyond
    mov es, eax
.beyond:
    CAUGHT 0x0d0000 + BEYOND, "MOV ES beyond the GDT: #GP(selector without RPL)"
    mov eax, EXECUTE_ONLY
    TRY .execute_only
    mov es, eax
.execute_only:
    CAUGHT 0x0d0000 + EXECUTE_ONLY, "MOV ES, execute-only code: #GP(selector)"
    xor eax, eax
    TRY .null_stack
    mov ss, eax
.null_stack:
    CAUGHT 0x0d0000, "MOV SS, null: #GP(0)"
    mov eax, USER_DATA
    TRY .user_stack
    mov ss, eax
.user_stack:
    CAUGHT 0x0d0020, "MOV SS of ring 3 in ring 0: #GP(selector)"
    mov eax, TASK
    TRY .busy
    ltr ax
.busy:
    CAUGHT 0x0d0000 + TASK, "LTR of a busy TSS: #GP(selector)"
    mov eax, ABSENT_TSS
    TRY .absent_tss
    ltr ax
.absent_tss:
    CAUGHT 0x0b0000 + ABSENT_TSS, "LTR, not present: #NP(selector)"
    mov eax, DATA32
    TRY .lldt
    lldt ax
.lldt:
    CAUGHT 0x0d0000 + DATA32, "LLDT of a data segment: #GP(selector)"
    TRY .short_tss
    jmp SHORT_TSS:0
.short_tss:
    CAUGHT 0x0a0000 + SHORT_TSS, "JMP to a TSS that is too short: #TS(selector)"
    TRY .jump_to_data
    jmp DATA32:0
.jump_to_data:
    CAUGHT 0x0d0000 + DATA32, "far JMP to data: #GP(selector)"
    TRY .beyond_idt
    int 0xf0
.beyond_idt:
    CAUGHT 0x0d0000 + 0xf0 * 8 + 2, "INT beyond the IDT: #GP(vector * 8 + 2)"
    mov byte ptr [idt + 0x41 * 8 + 5], 0x0e
    TRY .absent_gate
    int 0x41
.absent_gate:
    CAUGHT 0x0b0000 + 0x41 * 8 + 2, "INT through an absent gate: #NP(vector * 8 + 2)"

    ; 3. Ring 3, and back by the ring 0 stack of the TSS.
    mov byte ptr [idt + 0x80 * 8 + 5], 0xee         ; a gate with DPL 3
    RING3 user_int, .user_int
.user_int:
    CAUGHT 0x800000, "ring 3: INT through a gate of DPL 3"
    mov eax, [caught_eip]
    CHECK user_int.next, "... pushes EIP"
    mov eax, [caught_cs]
    CHECK USER_CODE, "... CS"
    mov eax, [caught_ss]
    CHECK USER_DATA, "... SS"
    mov eax, [caught_esp]
    CHECK user_top, "... ESP"
    mov eax, [caught_frame]
    CHECK ring0_top - 20, "... on the stack of the TSS"
    mov eax, [caught_eax]
    CHECK 0, "IRET to ring 3 had emptied DS, of ring 0"
    RING3 user_int30, .user_int30
.user_int30:
    CAUGHT 0x0d0182, "ring 3: INT 0x30, DPL 0: #GP(vector * 8 + 2)"
    RING3 user_int3, .user_int3
.user_int3:
    CAUGHT 0x0d001a, "ring 3: INT3, DPL 0: #GP(3 * 8 + 2)"
    RING3 user_into, .user_into
.user_into:
    CAUGHT 0x0d0022, "ring 3: INTO, DPL 0: #GP(4 * 8 + 2)"
    mov byte ptr [idt + 3 * 8 + 5], 0xee
    mov byte ptr [idt + 4 * 8 + 5], 0xee
    RING3 user_int3, .user_int3_again
.user_int3_again:
    CAUGHT 0x030000, "ring 3: INT3, DPL 3"
    RING3 user_into, .user_into_again
.user_into_again:
    CAUGHT 0x040000, "ring 3: INTO, DPL 3"
    RING3 user_cli, .user_cli
.user_cli:
    CAUGHT 0x0d0000, "ring 3: CLI with IOPL 0: #GP(0)"
    RING3 user_load, .user_load
.user_load:
    CAUGHT 0x0d0000 + DATA32, "ring 3: MOV DS of ring 0: #GP(selector)"

    ; 4. A call gate: parameters move from the caller's stack to that of ring 0, and RETF n drops them from both.
    RING3 user_gate, .user_gate
.user_gate:
    CAUGHT 0x800000, "ring 3: back from a call gate"
    mov eax, [caught_eax]
    CHECK 0x1200, "two parameters were copied"
    mov eax, [caught_esp]
    CHECK user_top, "RETF 8 dropped them"
    mov eax, [gate_esp]
    CHECK ring0_top - 24, "SS, ESP, parameters, CS, EIP on the stack of ring 0"
    mov eax, [gate_caller]
    CHECK USER_CODE, "the caller's CS among them"
    push 0x1000
    push 0x34
    mov ebx, esp
    call CALL_GATE:0                ; in the same ring nothing is copied
    sub ebx, esp
    mov eax, ebx
    CHECK -8, "a call gate in the same ring uses the same stack"

    ; 5. Conforming code runs in the ring of its caller.
    RING3 user_conforming, .user_conforming
.user_conforming:
    mov eax, [caught_eax]
    CHECK CONFORMING + 3, "conforming code of ring 0, called in ring 3, is in ring 3"

    ; 6. INT needs the stack of ring 0, but the TSS has a bad one: #TS, which needs it, too, so #DF, which is a task.
    GATE 8, DOUBLE_FAULT_TASK, 0, 0x85
    mov dword ptr [tss + TSS_SS0], USER_DATA
    RING3 user_int, .nowhere
.nowhere:
    CAUGHT 0, "unreachable"

double_fault:
    pop eax
    CHECK 0, "#DF by a task gate: its error code is 0"
    str ax
    movzx eax, ax
    CHECK DOUBLE_FAULT_TASK, "TR is the new task's"
    movzx eax, word ptr [double_fault_tss + TSS_LINK]
    CHECK TASK, "its back link is the old one"
    mov eax, [tss + TSS_EIP]
    CHECK user_int.int, "the old one's EIP is that of the INT"
    mov eax, [tss + TSS_CS]
    CHECK USER_CODE, "and its CS"
    mov dword ptr [tss + TSS_EIP], after_double_fault
    mov dword ptr [tss + TSS_EFLAGS], 2
    mov dword ptr [tss + TSS_ESP], stack_top
    mov dword ptr [tss + TSS_CS], CODE32
    mov dword ptr [tss + TSS_SS], DATA32
    mov dword ptr [tss + TSS_DS], DATA32
    mov dword ptr [tss + TSS_ES], DATA32
    iret                            ; NT is set: back to the old task, with what we have made of it

after_double_fault:
    str ax
    movzx eax, ax
    CHECK TASK, "IRET with NT goes back to the old task"
    jmp finish32

to_user:                            ; to ring 3 at EBX
    push USER_DATA
    push user_top
    push 2
    push USER_CODE
    push ebx
    iret

gate_routine:                       ; two parameters: EAX is their difference
    mov ss:[esp_seen], esp
    mov eax, [esp + 12]
    sub eax, [esp + 8]
    push ebx
    mov ebx, [esp + 8]
    mov ss:[gate_caller], ebx
    mov ebx, ss:[esp_seen]
    mov ss:[gate_esp], ebx
    pop ebx
    retf 8

user_int:                           ; what ring 3 does; DS is null there, SS and CS have the same base
    mov eax, ds
.int:
    int 0x80
.next:
user_int30:
    int 0x30
user_int3:
    int3
user_into:
    mov al, 0x7f
    add al, 1
    into
user_cli:
    cli
user_load:
    mov eax, DATA32
    mov ds, eax
user_gate:
    push 0x1234
    push 0x34
    call CALL_GATE + 3:0            ; the offset is the gate's
    int 0x80
user_conforming:
    call CONFORMING:conforming
    int 0x80
conforming:
    mov eax, cs
    retf

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
    .quad 0x00cffb000000ffff        ; 0x18 code of ring 3
    .quad 0x00cff3000000ffff        ; 0x20 data of ring 3
    TSS_DESCRIPTOR tss, TSS_SIZE - 1, 0x89                  ; 0x28
    TSS_DESCRIPTOR double_fault_tss, TSS_SIZE - 1, 0x89     ; 0x30
    .word gate_routine & 0xffff, CODE32, 0xec02, gate_routine >> 16     ; 0x38 a 32-bit call gate, 2 parameters, DPL 3
    .quad 0x00cf9f000000ffff        ; 0x40 conforming code of ring 0
    .quad 0x00cf13000000ffff        ; 0x48 data, not present
    TSS_DESCRIPTOR tss, TSS_SIZE - 1, 0x09                  ; 0x50 not present
    TSS_DESCRIPTOR tss, TSS_SIZE - 2, 0x89                  ; 0x58 too short
    .quad 0x00cf99000000ffff        ; 0x60 code that can't be read
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

gate_esp: .long 0
gate_caller: .long 0
esp_seen: .long 0

.align 128
tss:
    .long 0, ring0_top, DATA32
    .space TSS_IO_MAP - 12
    .word TSS_SIZE                  ; no I/O map
.align 128
double_fault_tss:
    NEW_TASK double_fault, double_fault_top, CODE32, DATA32

.align 16
    .space 512
user_top:
    .space 512
double_fault_top:
    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
