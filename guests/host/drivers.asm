; Drivers: interrupt controllers, timer, serial port, disk, and the debug console with its printing.

; The two 8259s. Their interrupts go to vectors 0x20-0x2f: the vectors that the BIOS gave them are the processor's own
; exceptions. The four bytes are the initialization command words 1-4 of the data sheet.
start_interrupt_controllers:
    mov al, 0x11                        ; edge-triggered, two controllers, word 4 follows
    out 0x20, al
    out 0xa0, al
    mov al, 0x20                        ; the vectors
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4                           ; the second one is at line 2 of the first
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1                           ; 8086 mode, an end of interrupt must be given
    out 0x21, al
    out 0xa1, al
    mov al, 0xfe                        ; masks: IRQ 0 only
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    ret

; The 8254 counts at 1 193 182 Hz; divided by 298 that is 4004 ticks a second: as short a turn as shows much in a run of
; some milliseconds.
TIMER_DIVISOR = 298

start_timer:
    mov al, 0x34                        ; channel 0, low byte then high byte, mode 2 (rate generator)
    out 0x43, al
    mov al, TIMER_DIVISOR & 0xff
    out 0x40, al
    mov al, TIMER_DIVISOR >> 8
    out 0x40, al
    ret

; COM1, a 16550: 115200 baud, 8 bits, no parity, 1 stop bit, no interrupts.
COM1 = 0x3f8

start_serial:
    mov dx, COM1 + 1
    xor eax, eax
    out dx, al                          ; no interrupts
    mov dx, COM1 + 3
    mov al, 0x80                        ; DLAB: the next two are the divisor
    out dx, al
    mov dx, COM1
    mov al, 1
    out dx, al
    mov dx, COM1 + 1
    mov al, 0
    out dx, al
    mov dx, COM1 + 3
    mov al, 3                           ; 8N1, and DLAB off
    out dx, al
    mov dx, COM1 + 2
    mov al, 7                           ; FIFOs on and empty
    out dx, al
    mov dx, COM1 + 4
    mov al, 3                           ; DTR and RTS
    out dx, al
    ret

; ECX bytes at ESI to COM1, waiting for the holding register (THRE, bit 5 of the line status) before each.
write_serial:
    jecxz .done
.wait:
    mov dx, COM1 + 5
    in al, dx
    test al, 0x20
    jz .wait
    mov dx, COM1
    outsb
    dec ecx
    jnz .wait
.done:
    ret

; Block EBX of the first ATA disk to EDI, polled (28-bit LBA, command 0x20). EAX = 0, or -1: no disk, no such
; block, or an error.
ATA      = 0x1f0
ATA_BUSY = 0x80
ATA_DATA = 0x08                         ; DRQ: the data wait to be fetched
ATA_BAD  = 0x21                         ; device fault, error

read_disk:
    cmp ebx, 0x10000000
    jae .bad
    mov dx, 0x3f6
    mov al, 2                           ; nIEN: no interrupts, we look ourselves
    out dx, al
    mov eax, ebx
    shr eax, 24
    or al, 0xe0                         ; LBA, first drive
    mov dx, ATA + 6
    out dx, al
    mov dx, ATA + 7
    in al, dx
    cmp al, 0xff                        ; nothing on the bus
    je .bad
    test al, al                         ; or nothing that is ready
    jz .bad
    mov dx, ATA + 2
    mov al, 1                           ; one block
    out dx, al
    inc edx
    mov eax, ebx
    out dx, al                          ; its number, from the low byte up
    inc edx
    shr eax, 8
    out dx, al
    inc edx
    shr eax, 8
    out dx, al
    mov dx, ATA + 7
    mov al, 0x20                        ; read sectors
    out dx, al
    mov ecx, 1000000                    ; a disk that answers not at all must not stop us
.wait:
    dec ecx
    jz .bad
    in al, dx
    test al, ATA_BUSY
    jnz .wait
    test al, ATA_BAD
    jnz .bad
    test al, ATA_DATA
    jz .wait
    mov dx, ATA
    mov ecx, 256
    rep insw
    xor eax, eax
    ret
.bad:
    mov eax, -1
    ret

; The debug console: a byte to port 0xe9 is a byte on it.
CONSOLE = 0xe9

print_string:                           ; ESI = text, ended by 0
    lodsb
    test al, al
    jz .done
    out CONSOLE, al
    jmp print_string
.done:
    ret

print_decimal:                          ; EAX, unsigned: the digits before the last one, then the last one
    xor edx, edx
    mov ecx, 10
    div ecx
    push edx
    test eax, eax
    jz .last
    call print_decimal
.last:
    pop eax
    add al, '0'
    out CONSOLE, al
    ret

print_hex:                              ; EAX, all eight digits
    mov edx, eax
    mov ecx, 8
.digit:
    rol edx, 4
    mov eax, edx
    and eax, 15
    mov al, [hex_digits + eax]
    out CONSOLE, al
    dec ecx
    jnz .digit
    ret

hex_digits: .ascii "0123456789abcdef"
