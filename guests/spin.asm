; spins in one instruction until the fifth timer interrupt, whose handler prints and halts
;
; `jmp $` never leaves its basic block and reads nothing that could change. Whoever runs this kernel must bring the
; interrupt in by himself, and must charge time for an instruction that gets nowhere.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"
.include "guest/console.asm"
.include "guest/timer.asm"

.equ TICKS_WANTED, 5

start:
    cli
    mov esp, stack_top
    call console_initialise
    say text_spinning
    lgdt [gdt_pointer]              ; a gate names a code segment: we need one that we know
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    jmp 0x08:load_idt
load_idt:
    mov eax, spin_timer_entry       ; one gate, of vector 0x20
    mov word ptr [idt + 0x20 * 8], ax
    mov word ptr [idt + 0x20 * 8 + 2], 0x08
    mov word ptr [idt + 0x20 * 8 + 4], 0x8e00
    shr eax, 16
    mov word ptr [idt + 0x20 * 8 + 6], ax
    lidt [idt_pointer]
    call initialise_interrupts
    call start_timer
    sti
spinning:
    jmp spinning

spin_timer_entry:
    push eax
    mov al, END_OF_INTERRUPT
    out PIC1, al
    inc dword ptr [spin_ticks]
    cmp dword ptr [spin_ticks], TICKS_WANTED
    je last_tick
    pop eax
    iret
last_tick:
    cmp dword ptr [esp + 4], spinning   ; above eax: where it was interrupted
    jne not_there
    say text_ticks
    jmp stop
not_there:
    say text_wrong
    mov al, 1
    out 0xf4, al                    ; a debug exit where there is one
stop:
    cli
    hlt
    jmp stop

text_spinning: .asciz "spin: spinning\n"
text_ticks: .asciz "spin: five ticks\n"
text_wrong: .asciz "spin: WRONG: interrupted at an instruction that I am not at\n"

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.align 4
idt_pointer:
    .word 0x21 * 8 - 1
    .long idt
.align 4
spin_ticks: .long 0
ticks: .long 0                      ; timer.asm counts here
spins: .long 0
.align 8
idt: .space 0x21 * 8
.align 16
    .space 1024
stack_top:
image_end:
