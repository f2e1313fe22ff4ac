; COM1, a 16550: 115200 baud, 8 bits, no parity, one stop bit, FIFOs on.

.equ COM1, 0x3f8
.equ COM1_INTERRUPTS, COM1 + 1
.equ COM1_FIFO, COM1 + 2
.equ COM1_LINE, COM1 + 3
.equ COM1_MODEM, COM1 + 4
.equ COM1_STATUS, COM1 + 5
.equ RECEIVED, 0x01
.equ TRANSMITTER_EMPTY, 0x20

.macro OUTB port, value             ; a byte to a port above 0xff; spoils AL and DX
    mov dx, \port
    mov al, \value
    out dx, al
.endm

start_serial:                       ; with an interrupt for what is received; spoils EAX and EDX
    OUTB COM1_LINE, 0x80            ; DLAB: the first two registers are the divisor
    OUTB COM1, 1
    OUTB COM1_INTERRUPTS, 0
    OUTB COM1_LINE, 0x03            ; DLAB off
    OUTB COM1_FIFO, 0x07            ; FIFOs on and empty, an interrupt for each character
    OUTB COM1_MODEM, 0x0b           ; DTR, RTS, and OUT2, which lets the interrupt through
    OUTB COM1_INTERRUPTS, 1
    ret

send_serial:                        ; AL; keeps all registers
    push edx
    push eax
    mov dx, COM1_STATUS
.wait:
    in al, dx
    test al, TRANSMITTER_EMPTY
    jz .wait
    pop eax
    mov dx, COM1
    out dx, al
    pop edx
    ret
