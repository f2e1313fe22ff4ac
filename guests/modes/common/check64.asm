; Checks for 64-bit code, with the texts and the count of check32.asm, which must be included, too.

.code64
.macro CHECK64 wanted, text         ; is RAX `wanted` (32 bits, sign-extended)? Keeps all registers
    push \wanted
    call check64
    .asciz \text
.endm

check64:                            ; the text lies behind the call
    push rsi
    push rdx
    inc dword ptr [check_number]
    mov rsi, [rsp + 16]             ; the return address
    call print64
    mov [rsp + 16], rsi             ; go on behind the text
    mov rdx, [rsp + 24]
    cmp rax, rdx
    jne wrong64
    mov rsi, text_ok
    call print64
    pop rdx
    pop rsi
    ret 8

wrong64:                            ; RAX found, RDX wanted
    mov rsi, text_wrong
    call print64
    call print_hexadecimal64
    mov rsi, text_wanted
    call print64
    mov rax, rdx
    call print_hexadecimal64
    mov al, '\n'
    out 0xe9, al
    mov al, byte ptr [check_number]
.end:
    out 0xf4, al
    cli
    hlt
    jmp .end

print64:                            ; the text at RSI; leaves RSI behind its 0; keeps RAX
    push rax
.next:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp .next
.end:
    pop rax
    ret

print_hexadecimal64:                ; RAX, 16 digits
    mov ecx, 16
.digit:
    rol rax, 4
    push rax
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .decimal
    add al, 'a' - '0' - 10
.decimal:
    out 0xe9, al
    pop rax
    loop .digit
    ret
