; hardware task switches: by JMP, CALL, IRET, INT and an exception; busy bits, back links, NT, LDT and CR3 of each task

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
.equ MAIN_TASK, 0x28
.equ OTHER_TASK, 0x30
.equ USER_TASK, 0x38
.equ FAULT_TASK, 0x40
.equ TASK_GATE, 0x48                ; to OTHER_TASK
.equ LOCAL, 0x50                    ; the LDT of OTHER_TASK
.equ IN_LOCAL, 0x04                 ; the first descriptor in it
.equ FLAG_NT, 0x4000
.equ WINDOW, 0x400000               ; what each CR3 maps elsewhere

.macro BUSY selector                ; EAX: the busy bit of a TSS descriptor
    movzx eax, byte ptr [gdt + \selector + 5]
    and eax, 2
.endm

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
    lidt [idt_pointer]
    mov dword ptr [0x400000], 1     ; what the two directories will map at WINDOW
    mov dword ptr [0x800000], 2
    mov dword ptr [other_tss + TSS_CR3], other_directory
    mov dword ptr [other_tss + TSS_ECX], 0xecec
    mov dword ptr [other_tss + TSS_LDT], LOCAL
    mov dword ptr [other_tss + TSS_FS], IN_LOCAL
    mov dword ptr [user_tss + TSS_CR3], main_directory
    mov dword ptr [fault_tss + TSS_CR3], main_directory
    mov eax, cr4
    or eax, 0x10                    ; PSE
    mov cr4, eax
    mov eax, main_directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    BUSY MAIN_TASK
    CHECK 0, "a new TSS isn't busy"
    mov eax, MAIN_TASK
    ltr ax
    BUSY MAIN_TASK
    CHECK 2, "LTR marks it busy"

    ; 1. JMP: the old task becomes free, and nothing leads back.
    mov dword ptr [back], other_task.jump
    clts
    mov ebx, 0x12345678
    mov ebp, esp
    jmp OTHER_TASK:0
.after_jump:
    mov eax, [seen_tr]
    CHECK OTHER_TASK, "JMP: TR is the other task's"
    mov eax, [seen_ecx]
    CHECK 0xecec, "its registers are loaded from its TSS"
    mov eax, [seen_eflags]
    and eax, FLAG_NT
    CHECK 0, "NT is clear"
    mov eax, [seen_busy]
    CHECK 0, "the old TSS is free meanwhile"
    mov eax, [seen_ts]
    CHECK 8, "CR0.TS is set"
    mov eax, [seen_ldt]
    CHECK LOCAL, "it has its LDT"
    mov eax, [seen_local]
    CHECK 0x1badb002, "and a segment from there"
    mov eax, [seen_window]
    CHECK 2, "and its CR3"
    mov eax, [WINDOW]
    CHECK 1, "this task has its own again"
    mov eax, ebx
    CHECK 0x12345678, "and its registers"
    mov eax, esp
    sub eax, ebp
    CHECK 0, "and its stack"
    str eax
    CHECK MAIN_TASK, "and TR"
    mov eax, [main_tss + TSS_EIP]
    CHECK .after_jump, "its TSS holds the EIP behind the JMP"
    BUSY OTHER_TASK
    CHECK 0, "the other TSS is free again"

    ; 2. CALL: both are busy, the back link and NT lead IRET back.
    mov dword ptr [back], other_task.iret
    call OTHER_TASK:0
    mov eax, [seen_busy]
    CHECK 2, "CALL: the old TSS stays busy"
    mov eax, [seen_link]
    CHECK MAIN_TASK, "the back link is the old task"
    mov eax, [seen_eflags]
    and eax, FLAG_NT
    CHECK FLAG_NT, "NT is set"
    BUSY OTHER_TASK
    CHECK 0, "IRET: the other TSS is free again"
    mov eax, [other_tss + TSS_EFLAGS]
    and eax, FLAG_NT
    CHECK 0, "IRET: its NT is saved as 0"
    BUSY MAIN_TASK
    CHECK 2, "IRET: this TSS is still busy"
    call TASK_GATE:0
    mov eax, [seen_count]
    CHECK 3, "CALL through a task gate goes on behind its IRET"

    ; 3. INT and exceptions through task gates.
    GATE 0x40, OTHER_TASK, 0, 0x85
    int 0x40
    mov eax, [seen_link]
    CHECK MAIN_TASK, "INT: the back link"
    mov eax, [seen_count]
    CHECK 4, "INT through a task gate"
    GATE 13, FAULT_TASK, 0, 0x85
    mov dword ptr [resume], .faulted
    mov eax, 0x1000
.fault:
    mov fs, eax
.faulted:
    mov eax, [seen_error]
    CHECK 0x1000, "#GP by a task gate: the error code is on the new stack"
    mov eax, [seen_eip]
    CHECK .fault, "the TSS of the old task has the EIP of the fault"
    mov dword ptr [resume], .to_busy
    jmp MAIN_TASK:0
.to_busy:
    mov eax, [seen_error]
    CHECK MAIN_TASK, "JMP to a busy TSS, even one's own: #GP(selector)"
    GATE 13, CODE32, stubs + 13 * STUB, 0x8e

    ; 4. IRET with NT needs a busy TSS behind the link.
    mov word ptr [main_tss + TSS_LINK], OTHER_TASK
    push FLAG_NT + 2
    popfd
    TRY .link_free
    iret
.link_free:
    push 2
    popfd
    CAUGHT 0x0a0000 + OTHER_TASK, "IRET to a TSS that isn't busy: #TS(selector)"

    ; 5. A task in ring 3. It calls the other one, whose IRET comes back to ring 3; its own IRET comes back to us.
    call USER_TASK:0
    mov eax, [user_seen]
    CHECK USER_CODE, "a task in ring 3"
    mov eax, [seen_link]
    CHECK USER_TASK, "it has called the other task"
    mov eax, [seen_count]
    CHECK 5, "through a task gate with DPL 3"
    mov eax, [user_tss + TSS_CS]
    CHECK USER_CODE, "and went on in ring 3"
    movzx eax, word ptr [user_tss + TSS_LINK]
    CHECK MAIN_TASK, "IRET in ring 3 follows its back link"
    jmp finish32

; ----------------------------------------------------------------------------------------------- the other tasks
other_task:
    inc dword ptr [seen_count]
    mov [seen_ecx], ecx
    str eax
    mov [seen_tr], eax
    pushfd
    pop dword ptr [seen_eflags]
    movzx eax, word ptr [other_tss + TSS_LINK]
    mov [seen_link], eax
    BUSY MAIN_TASK
    mov [seen_busy], eax
    mov eax, cr0
    and eax, 8
    mov [seen_ts], eax
    sldt eax
    mov [seen_ldt], eax
    mov eax, fs:[0]
    mov [seen_local], eax
    mov eax, [WINDOW]
    mov [seen_window], eax
    jmp dword ptr [back]
.jump:
    jmp MAIN_TASK:0
    jmp other_task                  ; the next switch to this task goes on here
.iret:
    iret
    jmp other_task                  ; or here

fault_task:
    pop dword ptr [seen_error]
    mov eax, [resume]
    xchg eax, [main_tss + TSS_EIP]
    mov [seen_eip], eax
    iret
    jmp fault_task

user_task:
    mov eax, cs
    mov [user_seen], eax
    call TASK_GATE + 3:0
    iret

.align 4
back: .long 0                       ; the way that the other task takes back
seen_count: .long 0
seen_ecx: .long 0
seen_tr: .long 0
seen_eflags: .long 0
seen_link: .long 0
seen_busy: .long 0
seen_ts: .long 0
seen_ldt: .long 0
seen_local: .long 0
seen_window: .long 0
seen_error: .long 0
seen_eip: .long 0
user_seen: .long 0

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
    .quad 0x00cffb000000ffff        ; 0x18 code of ring 3
    .quad 0x00cff3000000ffff        ; 0x20 data of ring 3
    TSS_DESCRIPTOR main_tss, TSS_SIZE - 1, 0x89     ; 0x28
    TSS_DESCRIPTOR other_tss, TSS_SIZE - 1, 0x89    ; 0x30
    TSS_DESCRIPTOR user_tss, TSS_SIZE - 1, 0x89     ; 0x38
    TSS_DESCRIPTOR fault_tss, TSS_SIZE - 1, 0x89    ; 0x40
    .word 0, OTHER_TASK, 0xe500, 0                  ; 0x48 a task gate, DPL 3
    TSS_DESCRIPTOR ldt, 7, 0x82                     ; 0x50 an LDT
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.align 8
ldt:
    .word 0xffff, multiboot_header & 0xffff, 0x9300 + (multiboot_header >> 16), 0

.align 128
main_tss:                           ; SS0 and ESP0 aren't used, LTR only needs a TSS
    .space TSS_CR3
    .long main_directory
    .space TSS_IO_MAP - TSS_CR3 - 4
    .word TSS_SIZE
.align 128
other_tss:
    NEW_TASK other_task, other_top, CODE32, DATA32
.align 128
user_tss:
    NEW_TASK user_task, user_top, USER_CODE, USER_DATA
.align 128
fault_tss:
    NEW_TASK fault_task, fault_top, CODE32, DATA32

.align 4096
main_directory:                     ; 4 MiB pages: the first one to one, the second at WINDOW
    .long 0x87, 0x400087
    .space 4088
other_directory:
    .long 0x87, 0x800087
    .space 4088

.align 16
    .space 256
user_top:
    .space 256
fault_top:
    .space 512
other_top:
    .space 1024
stack_top:
image_end:
