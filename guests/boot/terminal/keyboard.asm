; The keyboard: an i8042 that translates to scan code set 1, on interrupt line 1.

.equ KEY_DATA, 0x60
.equ KEY_COMMAND, 0x64              ; reads as the status
.equ OUTPUT_FULL, 0x01
.equ INPUT_FULL, 0x02
.equ FROM_MOUSE, 0x20

.equ READ_COMMAND_BYTE, 0x20
.equ WRITE_COMMAND_BYTE, 0x60
.equ DISABLE_MOUSE, 0xa7
.equ DISABLE_KEYBOARD, 0xad
.equ ENABLE_KEYBOARD, 0xae
.equ COMMAND_BYTE_SET, 0x41         ; interrupt of the keyboard, translation
.equ COMMAND_BYTE_CLEAR, 0x12       ; interrupt of the mouse, keyboard off

.equ CODES, 0x3a                    ; that the tables know: up to the space bar
.equ LEFT_SHIFT, 0x2a
.equ RIGHT_SHIFT, 0x36
.equ RELEASED, 0x80
.equ EXTENDED, 0xe0

.macro KEY_SEND port, value         ; spoils AL
    call wait_for_controller
    mov al, \value
    out \port, al
.endm

start_keyboard:                     ; spoils EAX, EBX
    KEY_SEND KEY_COMMAND, DISABLE_KEYBOARD          ; nothing comes between a command and its answer
    KEY_SEND KEY_COMMAND, DISABLE_MOUSE
    call take_keys                  ; what was typed until now
    KEY_SEND KEY_COMMAND, READ_COMMAND_BYTE
.answer:
    in al, KEY_COMMAND
    test al, OUTPUT_FULL
    jz .answer
    in al, KEY_DATA
    or al, COMMAND_BYTE_SET
    and al, ~COMMAND_BYTE_CLEAR & 0xff
    mov bl, al
    KEY_SEND KEY_COMMAND, WRITE_COMMAND_BYTE
    KEY_SEND KEY_DATA, bl
    KEY_SEND KEY_COMMAND, ENABLE_KEYBOARD
    ret

wait_for_controller:                ; until it takes another byte; spoils AL
    in al, KEY_COMMAND
    test al, INPUT_FULL
    jnz wait_for_controller
    ret

on_keyboard:
    pushad
    call take_keys
    mov al, END_OF_INTERRUPT
    out MASTER, al
    popad
    iretd

take_keys:                          ; all that there are; spoils EAX, EBX
    in al, KEY_COMMAND
    test al, OUTPUT_FULL
    jz .none
    mov ah, al
    in al, KEY_DATA
    test ah, FROM_MOUSE
    jnz take_keys
    call take_code
    jmp take_keys
.none:
    ret

take_code:                          ; AL, a scan code; spoils EAX, EBX
    mov bl, [after_prefix]
    mov byte ptr [after_prefix], 0
    cmp al, EXTENDED
    je .prefix
    test bl, bl                     ; arrows and the like have no character
    jnz .done
    movzx ebx, al
    and bl, ~RELEASED & 0xff
    cmp bl, LEFT_SHIFT
    je .shift
    cmp bl, RIGHT_SHIFT
    je .shift
    test al, RELEASED
    jnz .done
    cmp bl, CODES
    jae .done
    cmp byte ptr [shifted], 0
    jne .upper
    mov al, [lower_keys + ebx]
    jmp queue_character
.upper:
    mov al, [upper_keys + ebx]
    jmp queue_character
.shift:
    test al, RELEASED
    setz byte ptr [shifted]
    ret
.prefix:
    mov byte ptr [after_prefix], 1
.done:
    ret

after_prefix: .byte 0
shifted: .byte 0
lower_keys:                         ; US layout, by scan code; 0 is no character
    .byte 0, 0x1b
    .ascii "1234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 "
upper_keys:
    .byte 0, 0x1b
    .ascii "!@#$%^&*()_+\b\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 "
