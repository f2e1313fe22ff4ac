; Checks for 32-bit code with flat segments: each prints a line, and the first that fails ends the machine.

.macro CHECK wanted, text           ; is EAX `wanted`? Keeps all registers and flags but CF, ZF ... of EFLAGS
    push \wanted
    call check32
    .asciz \text
.endm

check32:                            ; the text lies behind the call
    pushad
    inc dword ptr [check_number]
    mov esi, [esp + 32]             ; the return address
    call print32
    mov [esp + 32], esi             ; go on behind the text
    mov edx, [esp + 36]
    cmp eax, edx
    jne wrong32
    mov esi, text_ok
    call print32
    popad
    ret 4

wrong32:                            ; EAX found, EDX wanted
    mov esi, text_wrong
    call print32
    call print_hexadecimal32
    mov esi, text_wanted
    call print32
    mov eax, edx
    call print_hexadecimal32
    mov al, '\n'
    out 0xe9, al
    mov al, byte ptr [check_number]
    jmp end32

finish32:                           ; all is well
    mov esi, text_done
    call print32
    mov al, 0
end32:
    out 0xf4, al                    ; the debug exit ends the machine with status 2 * AL + 1
    cli
    hlt                             ; without interrupts: for machines that have no such port
    jmp end32

print32:                            ; the text at ESI; leaves ESI behind its 0; keeps EAX
    push eax
.next:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp .next
.end:
    pop eax
    ret

print_hexadecimal32:                ; EAX, 8 digits
    mov ecx, 8
.digit:
    rol eax, 4
    push eax
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .decimal
    add al, 'a' - '0' - 10
.decimal:
    out 0xe9, al
    pop eax
    loop .digit
    ret

.align 4
check_number: .long 0               ; of the check that was last begun
text_ok: .asciz ": ok\n"
text_wrong: .asciz ": WRONG, found "
text_wanted: .asciz ", wanted "
text_done: .asciz "done\n"
