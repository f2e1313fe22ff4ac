; Interrupts from outside: the two interrupt controllers and the timer.

.equ PIC1, 0x20
.equ PIC2, 0xa0
.equ END_OF_INTERRUPT, 0x20
.equ PIT_CHANNEL_0, 0x40
.equ PIT_CONTROL, 0x43
.equ PIT_DIVISOR, 298               ; 1193182 Hz / 298 = 4004 interrupts a second

.macro out_byte port, value         ; spoils al
    mov al, \value
    out \port, al
.endm

.code64
initialise_interrupts:              ; IRQ 0-15 become vectors 0x20-0x2f, all of them masked
    out_byte PIC1, 0x11             ; 1st word: edge triggered, cascaded, a 4th word follows
    out_byte PIC2, 0x11
    out_byte PIC1 + 1, 0x20         ; 2nd: the first vector; it would be 8 otherwise, that of the double fault
    out_byte PIC2 + 1, 0x28
    out_byte PIC1 + 1, 4            ; 3rd: the second controller hangs on IRQ 2
    out_byte PIC2 + 1, 2
    out_byte PIC1 + 1, 1            ; 4th: 8086 mode
    out_byte PIC2 + 1, 1
    out_byte PIC1 + 1, 0xff
    out_byte PIC2 + 1, 0xff
    ret

start_timer:
    out_byte PIT_CONTROL, 0x34      ; channel 0, low then high byte, mode 2 (rate generator), binary
    out_byte PIT_CHANNEL_0, PIT_DIVISOR & 0xff
    out_byte PIT_CHANNEL_0, PIT_DIVISOR >> 8
    out_byte PIC1 + 1, 0xfe         ; IRQ 0 only
    ret

stop_timer:
    out_byte PIC1 + 1, 0xff
    ret

wait_in_halt:                       ; three ticks asleep: at least three have come when it returns
    mov ebx, dword ptr [ticks]
    add ebx, 3
.sleep:
    sti                             ; takes effect only after the next instruction: no tick can slip in between
    hlt
    cli
    cmp dword ptr [ticks], ebx
    jb .sleep
    say text_halt_ticks
    ret

wait_in_spin:                       ; three ticks awake: nothing but an interrupt gets out of this loop
    mov ebx, dword ptr [ticks]
    add ebx, 3
    lea r15, [.spin]                ; where it runs: its own address, and all 64 bits of it must survive
    mov r14, 0x0123456789abcdef
    sti
.spin:
    inc dword ptr [spins]
    cmp dword ptr [ticks], ebx
    jb .spin
spun:
    cli
    say text_spin_ticks
    lea rax, [wait_in_spin.spin]
    sub rax, r15
    compare text_spin_place, 0
    mov rax, r14
    shr rax, 32
    compare text_spin_register, 0x01234567
    mov rax, r15
    shr rax, 32
    mov edx, 0xffffffff
    mov rsi, text_spin_high
    call check
    say new_line
    ret

timer_entry:
    push rax
    inc dword ptr [ticks]
    mov al, END_OF_INTERRUPT
    out PIC1, al
    pop rax
    iretq

stray_interrupt:                    ; all others are masked: a controller may still report one that went away again
    iretq

text_halt_ticks: .asciz "guest64: 3 timer interrupts in hlt\n"
text_spin_ticks: .asciz "guest64: 3 timer interrupts in a spin:"
text_spin_place: .asciz " place"
text_spin_register: .asciz ", registers"
text_spin_high: .asciz ", upper half"
