; A console on the first serial port, written to one character at a time: ask, wait, write.
; Every routine here keeps all registers, except what it says that it returns.

.equ COM1, 0x3f8
.equ COM1_INTERRUPTS, COM1 + 1
.equ COM1_FIFO, COM1 + 2
.equ COM1_LINE, COM1 + 3
.equ COM1_MODEM, COM1 + 4
.equ COM1_STATUS, COM1 + 5

.equ TRANSMITTER_EMPTY, 0x20    ; in the line status: the holding register takes another character

.macro say text                 ; prints the zero-terminated string at a label
    mov esi, \text
    call print
.endm

.macro out_port port, value     ; a byte to one of the ports above 0xff; spoils al and dx
    mov dx, \port
    mov al, \value
    out dx, al
.endm

console_initialise:
    pushad
    out_port COM1_INTERRUPTS, 0     ; no interrupts: we poll
    out_port COM1_LINE, 0x80        ; DLAB: the first two registers now are the divisor
    out_port COM1, 1                ; 115200 baud / 1
    out_port COM1_INTERRUPTS, 0
    out_port COM1_LINE, 0x03        ; 8 bits, no parity, 1 stop bit; DLAB off
    out_port COM1_FIFO, 0xc7        ; both FIFOs on and emptied, receive trigger at 14 bytes
    out_port COM1_MODEM, 0x03       ; DTR and RTS: we are here and ready
    popad
    ret

print_character:                    ; al
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

print:                              ; the zero-terminated string at esi
    pushad
.next:
    mov al, byte ptr [esi]
    test al, al
    jz .done
    call print_character
    inc esi
    jmp .next
.done:
    popad
    ret

print_hexadecimal:                  ; eax, as 0x and eight digits
    pushad
    mov edx, eax
    mov al, '0'
    call print_character
    mov al, 'x'
    call print_character
    mov ecx, 8
.digit:
    rol edx, 4                      ; the highest digit first
    mov eax, edx
    and eax, 15
    mov al, byte ptr [eax + hexadecimal_digits]
    call print_character
    dec ecx
    jnz .digit
    popad
    ret

print_decimal:                      ; eax, unsigned
    pushad
    mov ebx, 10
    xor ecx, ecx
.divide:                            ; the lowest digit comes out first: keep the digits on the stack
    xor edx, edx
    div ebx
    push edx
    inc ecx
    test eax, eax
    jnz .divide
.digit:
    pop eax
    add al, '0'
    call print_character
    dec ecx
    jnz .digit
    popad
    ret

check:                              ; esi = a name, eax = the value found, edx = the value expected
    pushad
    call print
    cmp eax, edx
    jne .wrong
    say check_ok
    popad
    ret
.wrong:
    say check_wrong
    call print_hexadecimal
    say check_instead
    mov eax, edx
    call print_hexadecimal
    say check_end
    inc dword ptr [failures]
    popad
    ret

hexadecimal_digits: .ascii "0123456789abcdef"
check_ok: .asciz " ok"
check_wrong: .asciz " WRONG ("
check_instead: .asciz " instead of "
check_end: .asciz ")"
.align 4
failures: .long 0                   ; checks that did not hold
