; What a guest can say to the test that runs it, in 32-bit code at ring 0:  .include "hvproto/assert.asm"
;
; ASSERT_EQ left, right   ends the guest unless both are the same: registers, numbers, `dword ptr [place]`, not by ESP
; SYNC number             tells the test that this point is reached
; DONE                    tells the test that all is well, and ends the guest with exit status 0
;
; Only macros stand here, so the file can be included first. A report is one line at the debug console, port 0xe9,
; "hvproto: WORD ADDRESS VALUES": it needs no memory but the stack, and comes on any machine, hosted or bare. All but
; the flags are as before when the guest goes on.

.equ HVPROTO_CONSOLE, 0xe9
.equ HVPROTO_EXIT, 0xf4
.equ HVPROTO_FAILED, 0x7f               ; the debug exit port's value after an assertion that failed: exit status 255

.macro HVPROTO_PUT character
    mov al, \character
    out HVPROTO_CONSOLE, al
.endm

.macro HVPROTO_TELL word, count         ; the first letter of the report's word, and so many doublewords from the stack
    HVPROTO_PUT 'h'
    HVPROTO_PUT 'v'
    HVPROTO_PUT 'p'
    HVPROTO_PUT 'r'
    HVPROTO_PUT 'o'
    HVPROTO_PUT 't'
    HVPROTO_PUT 'o'
    HVPROTO_PUT ':'
    HVPROTO_PUT ' '
    HVPROTO_PUT \word
    mov edx, \count
.hvproto_number_\@:
    HVPROTO_PUT ' '
    pop ebx
    mov ecx, 8
.hvproto_digit_\@:
    rol ebx, 4
    mov al, bl
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .hvproto_decimal_\@
    add al, 39                          ; 'a' - '0' - 10
.hvproto_decimal_\@:
    out HVPROTO_CONSOLE, al
    dec ecx
    jnz .hvproto_digit_\@
    dec edx
    jnz .hvproto_number_\@
    HVPROTO_PUT 10
.endm

.macro ASSERT_EQ left, right
.hvproto_here_\@:
    push \right
    push \left
    push eax
    mov eax, [esp + 4]
    cmp eax, [esp + 8]
    pop eax
    je .hvproto_equal_\@
    push offset .hvproto_here_\@
    HVPROTO_TELL 'E', 3
    mov al, HVPROTO_FAILED
    out HVPROTO_EXIT, al
.hvproto_stop_\@:
    cli
    hlt
    jmp .hvproto_stop_\@
.hvproto_equal_\@:
    lea esp, [esp + 8]
.endm

.macro SYNC number
.hvproto_here_\@:
    pushad
    push \number
    push offset .hvproto_here_\@
    HVPROTO_TELL 'S', 2
    popad
.endm

.macro DONE
.hvproto_here_\@:
    push offset .hvproto_here_\@
    HVPROTO_TELL 'D', 1
.hvproto_stop_\@:
    cli
    hlt
    jmp .hvproto_stop_\@
.endm
