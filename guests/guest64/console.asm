; A console on the first serial port, written to one character at a time: ask, wait, write.
; Every routine here keeps all registers, except what it says that it returns.

.equ COM1, 0x3f8
.equ COM1_INTERRUPTS, COM1 + 1
.equ COM1_FIFO, COM1 + 2
.equ COM1_LINE, COM1 + 3
.equ COM1_MODEM, COM1 + 4
.equ COM1_STATUS, COM1 + 5

.equ TRANSMITTER_EMPTY, 0x20        ; in the line status: the holding register takes another character

.macro say text                     ; prints the zero-terminated string at a label; spoils rsi
    mov rsi, \text
    call print
.endm

.macro out_port port, value         ; a byte to one of the ports above 0xff; spoils al and dx
    mov dx, \port
    mov al, \value
    out dx, al
.endm

.code64
console_initialise:
    push rax
    push rdx
    out_port COM1_INTERRUPTS, 0     ; no interrupts: we poll
    out_port COM1_LINE, 0x80        ; DLAB: the first two registers now are the divisor
    out_port COM1, 1                ; 115200 baud / 1
    out_port COM1_INTERRUPTS, 0
    out_port COM1_LINE, 0x03        ; 8 bits, no parity, 1 stop bit; DLAB off
    out_port COM1_FIFO, 0xc7        ; both FIFOs on and emptied, receive trigger at 14 bytes
    out_port COM1_MODEM, 0x03       ; DTR and RTS: we are here and ready
    pop rdx
    pop rax
    ret

print_character:                    ; al
    push rdx
    push rax
    mov dx, COM1_STATUS
.wait:
    in al, dx
    test al, TRANSMITTER_EMPTY
    jz .wait
    pop rax
    mov dx, COM1
    out dx, al
    pop rdx
    ret

print:                              ; the zero-terminated string at rsi
    push rax
    push rsi
.next:
    mov al, byte ptr [rsi]
    test al, al
    jz .done
    call print_character
    inc rsi
    jmp .next
.done:
    pop rsi
    pop rax
    ret

print_hexadecimal:                  ; rax, as 0x and sixteen digits
    push rax
    push rcx
    push rdx
    push rsi
    mov rdx, rax
    say text_0x
    mov ecx, 16
.digit:
    rol rdx, 4                      ; the highest digit first
    mov eax, edx
    and eax, 15
    mov al, byte ptr [rax + hexadecimal_digits]
    call print_character
    dec ecx
    jnz .digit
    pop rsi
    pop rdx
    pop rcx
    pop rax
    ret

print_decimal:                      ; rax, unsigned
    push rax
    push rbx
    push rcx
    push rdx
    mov ebx, 10
    xor ecx, ecx
.divide:                            ; the lowest digit comes out first: keep the digits on the stack
    xor edx, edx
    div rbx
    push rdx
    inc ecx
    test rax, rax
    jnz .divide
.digit:
    pop rax
    add al, '0'
    call print_character
    dec ecx
    jnz .digit
    pop rdx
    pop rcx
    pop rbx
    pop rax
    ret

.macro compare name, expected       ; rax against what it has to be, 32 bits sign-extended; spoils rsi and rdx
    mov rsi, \name
    mov rdx, \expected
    call check
.endm

check:                              ; rsi = a name, rax = the value found, rdx = the value expected
    call print
    push rsi
    cmp rax, rdx
    jne .wrong
    say check_ok
    pop rsi
    ret
.wrong:
    say check_wrong
    call print_hexadecimal
    say check_instead
    push rax
    mov rax, rdx
    call print_hexadecimal
    pop rax
    say check_end
    inc dword ptr [failures]
    pop rsi
    ret

hexadecimal_digits: .ascii "0123456789abcdef"
text_0x: .asciz "0x"
check_ok: .asciz " ok"
check_wrong: .asciz " WRONG ("
check_instead: .asciz " instead of "
check_end: .asciz ")"
