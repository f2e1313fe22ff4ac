; Text and numbers, a character at a time by `put_character` (AL; keeps all registers), which the kernel brings along.
; Every routine here keeps all registers, too.

.macro SAY text                     ; prints a string literal
    push esi
    mov esi, 3f
    call print
    pop esi
    jmp 1f
3:  .asciz \text
1:
.endm

print:                              ; the string at ESI, up to its 0
    push eax
    push esi
.next:
    mov al, [esi]
    test al, al
    jz .done
    call put_character
    inc esi
    jmp .next
.done:
    pop esi
    pop eax
    ret

print_decimal:                      ; EAX, unsigned
    pushad
    mov ebx, 10
    xor ecx, ecx                    ; digits on the stack
.divide:
    xor edx, edx
    div ebx
    push edx
    inc ecx
    test eax, eax
    jnz .divide
.digit:
    pop eax
    add al, '0'
    call put_character
    loop .digit
    popad
    ret

print_hex:                          ; EAX, as 0x and eight digits
    SAY "0x"
print_digits:                       ; EAX, the eight digits only
    pushad
    mov edx, eax
    mov ecx, 8
.digit:
    rol edx, 4
    mov eax, edx
    and eax, 15
    mov al, [hex_digits + eax]
    call put_character
    loop .digit
    popad
    ret

hex_digits: .ascii "0123456789abcdef"
