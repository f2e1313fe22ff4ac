; Checks for 16-bit code, real, protected or virtual-8086: as check32.asm has them for 32 bits.
;
; The including kernel defines BASE16, the label that is offset 0 of its 16-bit segments. SS and DS have the same base
; as CS.

.code16
.macro CHECK16 wanted, text         ; is AX `wanted`? Keeps all registers
    push \wanted
    call check16
    .asciz \text
.endm

check16:                            ; the text lies behind the call
    pusha
    mov bp, sp
    inc word ptr [check_number16 - BASE16]
    mov si, [bp + 16]               ; the return address
    call print16
    mov [bp + 16], si               ; go on behind the text
    mov dx, [bp + 18]
    cmp ax, dx
    jne wrong16
    mov si, text_ok16 - BASE16
    call print16
    popa
    ret 2

wrong16:                            ; AX found, DX wanted
    mov si, text_wrong16 - BASE16
    call print16
    call print_hexadecimal16
    mov si, text_wanted16 - BASE16
    call print16
    mov ax, dx
    call print_hexadecimal16
    mov al, '\n'
    out 0xe9, al
    mov al, byte ptr [check_number16 - BASE16]
.end:
    out 0xf4, al
    cli
    hlt
    jmp .end

print16:                            ; the text at SI; leaves SI behind its 0; keeps AX
    push ax
.next:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp .next
.end:
    pop ax
    ret

print_hexadecimal16:                ; AX, 4 digits
    mov cx, 4
.digit:
    rol ax, 4
    push ax
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .decimal
    add al, 'a' - '0' - 10
.decimal:
    out 0xe9, al
    pop ax
    loop .digit
    ret

.align 2
check_number16: .word 0
text_ok16: .asciz ": ok\n"
text_wrong16: .asciz ": WRONG, found "
text_wanted16: .asciz ", wanted "
