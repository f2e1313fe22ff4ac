; SYSTEM.BIN, which `small_system.asm` loads: it greets, waits for a key, echoes a line that is typed, tells date and
; time, and boots again. What it prints goes to the screen and, for whoever tests it, to port 0xe9.

.origin 0x0000
.code16

begin:
    mov ax, cs
    mov ds, ax
    mov es, ax
    mov [drive], dl
    mov fs, [zero]
    inc byte ptr fs:[0x500]         ; which start this is: INT 19h leaves memory alone
    mov al, fs:[0x500]
    add al, '0'
    mov [press_number], al
    mov [prompt_number], al
    mov [bye_number], al
    mov si, hello
    call say
    mov ah, 0x08                    ; where we come from
    mov dl, [drive]
    push es
    int 0x13
    pop es
    mov al, cl
    and al, 0x3f
    call number
    mov si, press
    call say
    xor ah, ah
    int 0x16
    mov si, prompt
    call say

    mov di, line
.key:
    xor ah, ah
    int 0x16
    cmp al, 13
    je .entered
    cmp al, 8
    je .back
    cmp al, 32
    jb .key
    cmp di, line + 39
    je .key
    stosb
    call put
    jmp .key
.back:
    cmp di, line
    je .key
    dec di
    mov si, erase
    call say
    jmp .key
.entered:
    mov byte ptr [di], 0
    mov si, answer
    call say
    mov si, line
    call say

    mov si, it_is
    call say
    mov ah, 0x04
    int 0x1a
    mov al, ch
    call digits
    mov al, cl
    call digits
    mov al, '-'
    call put
    mov al, dh
    call digits
    mov al, '-'
    call put
    mov al, dl
    call digits
    mov al, ' '
    call put
    mov ah, 0x02
    int 0x1a
    mov al, ch
    call digits
    mov al, ':'
    call put
    mov al, cl
    call digits
    mov si, end_of_line
    call say
    call large
    int 0x19

say:                                ; the string at DS:SI
    lodsb
    test al, al
    jz .end
    call put
    jmp say
.end:
    ret

put:                                ; the character in AL
    push ax
    push bx
    out 0xe9, al
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    pop bx
    pop ax
    ret

digits:                             ; the BCD number in AL
    push ax
    shr al, 4
    add al, '0'
    call put
    pop ax
    and al, 15
    add al, '0'
    jmp put

number:                             ; AL, below 100, in decimal
    aam
    add ax, 0x3030
    push ax
    mov al, ah
    call put
    pop ax
    jmp put

hello:  .asciz "small system, sectors per track: "
press:  .ascii "\r\npress a key "
press_number: .asciz "0"
prompt: .ascii "\r\n"
prompt_number: .asciz "0> "
erase:  .asciz "\b \b"
answer: .asciz "\r\nyou said: "
it_is:  .asciz "\r\nit is "
end_of_line: .asciz "\r\n"
zero:   .word 0
drive:  .byte 0
line:   .space 40

.org 0x900                          ; in the fifth cluster
large:
    mov si, bye
    jmp say
bye:    .ascii "again "
bye_number: .asciz "0\r\n"
