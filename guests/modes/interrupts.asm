; interrupts from the 8254 by the 8259: when they come, and when they wait

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/catch32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ FLAG_IF, 0x200
.equ TIMER, 0x20                    ; the vector of IRQ 0

.macro OUT8 port, value             ; spoils AL
    mov al, \value
    out \port, al
.endm

.macro ONE_SHOT                     ; counter 0, mode 0: one interrupt, after 1 ms
    OUT8 0x43, 0x30
    OUT8 0x40, 1193 & 0xff
    OUT8 0x40, 1193 >> 8
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
    GATE TIMER, CODE32, timer, 0x8e
    OUT8 0x20, 0x11                 ; ICW1: edges, cascade, ICW4 follows
    OUT8 0xa0, 0x11
    OUT8 0x21, TIMER                ; ICW2: vectors 0x20-0x27 and 0x28-0x2f
    OUT8 0xa1, TIMER + 8
    OUT8 0x21, 4                    ; ICW3: the second one is at input 2
    OUT8 0xa1, 2
    OUT8 0x21, 1                    ; ICW4: 8086
    OUT8 0xa1, 1
    OUT8 0x21, 0xfe                 ; all masked but IRQ 0
    OUT8 0xa1, 0xff

    ; 1. Asleep. STI takes effect behind the next instruction: the interrupt can't come before HLT waits for it.
    ONE_SHOT
    sti
    hlt
.behind_hlt:
    cli
    mov eax, [ticks]
    CHECK 1, "STI, HLT: the interrupt wakes the processor"
    mov eax, [timer_eip]
    CHECK .behind_hlt, "EIP is behind the HLT"
    mov eax, [timer_eflags]
    and eax, FLAG_IF
    CHECK FLAG_IF, "the frame has IF"
    mov eax, [handler_if]
    CHECK 0, "IF is clear in the handler"

    ; 2. While IF is clear it waits in the 8259; STI lets it in, one instruction later.
    ONE_SHOT
    call wait_for_request
    mov eax, [ticks]
    CHECK 1, "CLI: the interrupt waits in the 8259"
    sti
    nop
.shadow:
    cli
    mov eax, [ticks]
    CHECK 2, "STI lets it in"
    mov eax, [timer_eip]
    CHECK .shadow, "behind the instruction that follows STI"
    ONE_SHOT
    call wait_for_request
    sti
    cli
    nop
    mov eax, [ticks]
    CHECK 2, "STI, CLI: no window between the two"
    push FLAG_IF + 2
    popfd
.popf:
    cli
    mov eax, [ticks]
    CHECK 3, "POPFD lets it in"
    mov eax, [timer_eip]
    CHECK .popf, "at once"
    ONE_SHOT
    call wait_for_request
    push FLAG_IF + 2
    push CODE32
    push .iret
    iret
.iret:
    cli
    mov eax, [ticks]
    CHECK 4, "IRET lets it in"
    mov eax, [timer_eip]
    CHECK .iret, "at once"
    ONE_SHOT
    call wait_for_request
    mov eax, ss
    sti
    mov ss, eax
    nop
    cli
    mov eax, [ticks]
    CHECK 5, "STI, MOV SS, NOP lets it in"

    ; 3. The 8259's mask holds it back as well, and what waits comes when the mask goes.
    OUT8 0x21, 0xff
    ONE_SHOT
    call wait_for_request
    sti
    call settle
    mov eax, [ticks]
    CHECK 5, "masked in the 8259: it waits, whatever IF"
    OUT8 0x21, 0xfe
    call settle
    cli
    mov eax, [ticks]
    CHECK 6, "it comes when the mask goes"

    ; 4. Without EOI no other interrupt of this level is let through.
    mov dword ptr [no_eoi], 1
    ONE_SHOT
    sti
    hlt
    cli
    OUT8 0x20, 0x0b                 ; OCW3: read the in-service register
    in al, 0x20
    movzx eax, al
    CHECK 1, "without EOI IRQ 0 stays in service"
    ONE_SHOT
    call wait_for_request
    sti
    call settle
    cli
    mov eax, [ticks]
    CHECK 7, "and the next one waits"
    mov dword ptr [no_eoi], 0
    OUT8 0x20, 0x20                 ; EOI
    sti
    call settle
    cli
    mov eax, [ticks]
    CHECK 8, "until EOI"

    ; 5. Periodic, awake: the loop is interrupted wherever it is, and doesn't notice.
    OUT8 0x43, 0x34                 ; counter 0, mode 2
    OUT8 0x40, 1193 & 0xff
    OUT8 0x40, 1193 >> 8
    mov ebx, [ticks]
    add ebx, 10
    sti
.spin:
    mov eax, 0x5a5a5a5a
    xor ecx, ecx
    cmp [ticks], ebx
    jb .spin
    cli
    OUT8 0x21, 0xff
    mov eax, 1
    CHECK 1, "ten ticks of a periodic timer"
    jmp finish32

wait_for_request:                   ; until IRQ 0 is in the 8259's request register
    OUT8 0x20, 0x0a                 ; OCW3: read that register
.again:
    in al, 0x20
    test al, 1
    jz .again
    ret

settle:                             ; for a moment: neither the 8259 nor every emulator is quick about it
    mov ecx, 1000
.next:
    loop .next
    ret

timer:
    push eax
    inc dword ptr [ticks]
    mov eax, [esp + 4]
    mov [timer_eip], eax
    mov eax, [esp + 12]
    mov [timer_eflags], eax
    pushfd
    pop eax
    and eax, FLAG_IF
    mov [handler_if], eax
    cmp dword ptr [no_eoi], 0
    jne .end
    OUT8 0x20, 0x20
.end:
    pop eax
    iret

.align 4
ticks: .long 0
timer_eip: .long 0
timer_eflags: .long 0
handler_if: .long 0
no_eoi: .long 0

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
