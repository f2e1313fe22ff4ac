; The two 8259s, and the timer behind line 0 of the first one.

.equ MASTER, 0x20
.equ SLAVE, 0xa0
.equ FIRST_VECTOR, 0x20             ; lines 0-7 there, 8-15 at 0x28: below are the processor's own exceptions
.equ END_OF_INTERRUPT, 0x20
.equ TIMER_LINE, 0
.equ KEYBOARD_LINE, 1
.equ SERIAL_LINE, 4

; The 8254 counts at 1 193 182 Hz; divided by 11932 that is 99.998 ticks a second.
.equ TIMER_DIVISOR, 11932

start_interrupts:                   ; spoils EAX
    GATE FIRST_VECTOR + TIMER_LINE, on_timer
    GATE FIRST_VECTOR + KEYBOARD_LINE, on_keyboard
    GATE FIRST_VECTOR + SERIAL_LINE, on_serial
    GATE FIRST_VECTOR + 7, on_nothing
    mov al, 0x11                    ; ICW1: edges, two controllers, ICW4 follows
    out MASTER, al
    out SLAVE, al
    mov al, FIRST_VECTOR            ; ICW2
    out MASTER + 1, al
    mov al, FIRST_VECTOR + 8
    out SLAVE + 1, al
    mov al, 0x04                    ; ICW3: the slave is at line 2 of the master
    out MASTER + 1, al
    mov al, 0x02
    out SLAVE + 1, al
    mov al, 0x01                    ; ICW4: 8086 mode, ends of interrupt are given
    out MASTER + 1, al
    out SLAVE + 1, al
    mov al, 0xff & ~(1 << TIMER_LINE | 1 << KEYBOARD_LINE | 1 << SERIAL_LINE)
    out MASTER + 1, al
    mov al, 0xff
    out SLAVE + 1, al
    ret

start_timer:                        ; spoils EAX
    mov al, 0x34                    ; counter 0, low byte then high byte, mode 2 (rate generator)
    out 0x43, al
    mov al, TIMER_DIVISOR & 0xff
    out 0x40, al
    mov al, TIMER_DIVISOR >> 8
    out 0x40, al
    ret

on_timer:
    push eax
    inc dword ptr [ticks]
    mov al, END_OF_INTERRUPT
    out MASTER, al
    pop eax
    iretd

on_nothing:                         ; line 7 that went away before it was acknowledged: no end of interrupt
    iretd

.align 4
ticks: .long 0
