; debugging: single steps, the breakpoints of DR0 to DR3, what DR6 tells, RF, and what comes in between

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/catch32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ FLAG_TF, 0x100
.equ FLAG_RF, 0x10000
.equ B0, 1                          ; bits of DR6
.equ B1, 2
.equ B2, 4
.equ B3, 8
.equ BS, 0x4000
.equ EXECUTE_0, 0x00000401          ; DR7: DR0 for execution, ...
.equ WRITE_1, 0x00d00404            ; DR1 for writes to 4 bytes
.equ ACCESS_2, 0x03000410           ; DR2 for reads and writes of 1 byte
.equ PORT_3, 0x20000440             ; DR3 for a port
.equ NONE, 0x400
.equ DE, 8                          ; CR4

.macro STEP                         ; single steps, from the end of the next instruction on
    mov dword ptr [count], 0
    push FLAG_TF + 2
    popfd
.endm

.macro NO_STEP                      ; two more steps: after each of these instructions
    push 2
    popfd
.endm

.macro DR register, value           ; spoils EAX
    mov eax, \value
    mov \register, eax
.endm

.macro BREAK_ON condition
    mov dword ptr [count], 0
    mov dword ptr [seen_dr6], 0
    DR dr7, \condition
.endm

.macro TRAPS number, text           ; so many #DB since
    mov eax, [count]
    CHECK \number, \text
.endm

.macro CAUSE bits, text             ; what DR6 said at the last one
    mov eax, [seen_dr6]
    and eax, BS + 15
    CHECK \bits, \text
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
    GATE 1, CODE32, debug, 0x8e

    ; 1. Single steps: a trap behind each instruction that begins with TF set.
    STEP
    nop
.first_step:
    nop
    NO_STEP
.last_step:
    TRAPS 4, "TF: a trap after each of 4 instructions"
    CAUSE BS, "DR6 says BS"
    mov eax, [first_eip]
    CHECK .first_step, "the first one after the instruction behind POPF"
    mov eax, [seen_eip]
    CHECK .last_step, "the last one after the POPF that clears TF"
    mov eax, [handler_tf]
    CHECK 0, "TF is clear in the handler"
    mov eax, ss
    STEP
    mov ss, eax                     ; no trap behind this
    nop
.behind_shadow:
    NO_STEP
    TRAPS 3, "MOV SS: no trap between it and the next instruction"
    mov eax, [first_eip]
    CHECK .behind_shadow, "but one after that"
    push ss
    STEP
    pop ss
    nop
    NO_STEP
    TRAPS 3, "POP SS, too"
    mov ecx, 3
    mov edi, scratch
    STEP
    rep stosb
    NO_STEP
    TRAPS 5, "REP STOSB: a trap after each of 3 times"
    GATE 0x40, CODE32, returns, 0x8e
    STEP
    int 0x40
    nop
.behind_int:
    NO_STEP
    TRAPS 3, "INT n: neither INT nor the handler nor IRET is stepped"
    mov eax, [first_eip]
    CHECK .behind_int, "but the instruction behind IRET"

    ; 2. Execution: a fault, before the instruction. With RF in the flags that IRET loads, it then runs.
    DR dr0, .breakpoint
    BREAK_ON EXECUTE_0
    xor ebx, ebx
.breakpoint:
    inc ebx
    inc ebx
    TRAPS 1, "DR0, execution: one #DB"
    CAUSE B0, "DR6 says B0"
    mov eax, [seen_eip]
    CHECK .breakpoint, "EIP is at the instruction"
    mov eax, [seen_ebx]
    CHECK 0, "which hasn't run yet"
    mov eax, ebx
    CHECK 2, "with RF it runs"
    mov ecx, 3
    DR dr0, .again
    BREAK_ON EXECUTE_0
.again:
    loop .again
    TRAPS 3, "RF is good for one instruction: 3 in a loop of 3"
    BREAK_ON NONE
    mov ecx, 3
    jmp .disabled
.disabled:
    mov eax, .disabled
    mov dr0, eax
    TRAPS 0, "none without its bit in DR7"

    ; 3. Data: a trap, after the instruction.
    DR dr1, watched
    BREAK_ON WRITE_1
    mov eax, [watched]
    TRAPS 0, "DR1, writes: not by a read"
    mov dword ptr [watched + 4], 1
    mov byte ptr [watched - 1], 1
    TRAPS 0, "not beside its 4 bytes"
    mov byte ptr [watched + 3], 1
.behind_write:
    nop
    TRAPS 1, "by a write to the last of them"
    CAUSE B1, "DR6 says B1"
    mov eax, [seen_eip]
    CHECK .behind_write, "EIP is behind the instruction"
    mov dword ptr [watched - 3], 1
    TRAPS 2, "by a write that begins before"
    inc dword ptr [watched]
    TRAPS 3, "by INC"
    mov ebx, esp
    mov esp, watched + 4
    push 1
    mov esp, ebx
    TRAPS 4, "by PUSH"
    DR dr2, watched + 1
    BREAK_ON ACCESS_2
    mov eax, [watched]
    nop
    TRAPS 1, "DR2, access: by a read"
    CAUSE B2, "DR6 says B2"
    mov al, [watched + 2]
    TRAPS 1, "not by a read beside it"

    ; 4. Ports, with CR4.DE; DR4 and DR5 are DR6 and DR7 only without.
    BREAK_ON NONE
    mov eax, dr5
    CHECK NONE, "DR5 is DR7"
    mov eax, cr4
    or eax, DE
    mov cr4, eax
    TRY .dr5
    mov eax, dr5
.dr5:
    CAUGHT 0x060000, "DR5 with CR4.DE: #UD"
    DR dr3, 0x80
    BREAK_ON PORT_3
    out 0x80, al
.behind_out:
    nop
    TRAPS 1, "DR3, a port: one #DB"
    CAUSE B3, "DR6 says B3"
    mov eax, [seen_eip]
    CHECK .behind_out, "EIP is behind the OUT"
    jmp finish32

debug:                              ; #DB: notes it, clears DR6, sets RF
    push eax
    mov eax, dr6
    mov [seen_dr6], eax
    xor eax, eax
    mov dr6, eax
    mov [seen_ebx], ebx
    mov eax, [esp + 4]
    mov [seen_eip], eax
    cmp dword ptr [count], 0
    jne .not_first
    mov [first_eip], eax
.not_first:
    inc dword ptr [count]
    pushfd
    pop eax
    and eax, FLAG_TF
    mov [handler_tf], eax
    or dword ptr [esp + 12], FLAG_RF
    pop eax
    iret

returns:
    iret

.align 4
count: .long 0                      ; of #DB
first_eip: .long 0                  ; of the first of them
seen_eip: .long 0                   ; of the last
seen_dr6: .long 0
seen_ebx: .long 0
handler_tf: .long 0
scratch: .long 0, 0
    .space 64                       ; for a stack that ends at `watched`
watched: .long 0, 0

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

.align 16
    .space 1024
stack_top:
image_end:
