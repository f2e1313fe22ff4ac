; Interrupts from outside: the two interrupt controllers and the timer.

.equ PIC1, 0x20
.equ PIC2, 0xa0
.equ END_OF_INTERRUPT, 0x20
.equ PIT_CHANNEL_0, 0x40
.equ PIT_CONTROL, 0x43
.equ PIT_DIVISOR, 298               ; 1193182 Hz / 298 = 4004 interrupts a second

initialise_interrupts:              ; IRQ 0-15 become vectors 0x20-0x2f, all of them masked
    mov al, 0x11                    ; 1st word: edge triggered, cascaded, a 4th word follows
    out PIC1, al
    out PIC2, al
    mov al, 0x20                    ; 2nd: the first vector; it would be 8 otherwise, that of the double fault
    out PIC1 + 1, al
    mov al, 0x28
    out PIC2 + 1, al
    mov al, 4                       ; 3rd: the second controller hangs on IRQ 2
    out PIC1 + 1, al
    mov al, 2
    out PIC2 + 1, al
    mov al, 1                       ; 4th: 8086 mode
    out PIC1 + 1, al
    out PIC2 + 1, al
    mov al, 0xff
    out PIC1 + 1, al
    out PIC2 + 1, al
    ret

start_timer:
    mov al, 0x34                    ; channel 0, low then high byte, mode 2 (rate generator), binary
    out PIT_CONTROL, al
    mov al, PIT_DIVISOR & 0xff
    out PIT_CHANNEL_0, al
    mov al, PIT_DIVISOR >> 8
    out PIT_CHANNEL_0, al
    mov al, 0xfe                    ; IRQ 0 only
    out PIC1 + 1, al
    ret

stop_timer:
    mov al, 0xff
    out PIC1 + 1, al
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
    sti
.spin:
    inc dword ptr [spins]
    cmp dword ptr [ticks], ebx
    jb .spin
    cli
    say text_spin_ticks
    ret

timer_entry:
    push eax
    inc dword ptr [ticks]
    mov al, END_OF_INTERRUPT
    out PIC1, al
    pop eax
    iret

stray_interrupt:                    ; all others are masked: a controller may still report one that went away again
    iret

.align 4
text_halt_ticks: .asciz "guest: 3 timer interrupts in hlt\n"
text_spin_ticks: .asciz "guest: 3 timer interrupts in a spin\n"
