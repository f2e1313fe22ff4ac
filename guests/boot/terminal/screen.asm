; The VGA's text screen: 25 lines of 80 cells at 0xb8000, each a character and its colours; the CRTC shows the cursor.

.equ SCREEN, 0xb8000
.equ COLUMNS, 80
.equ ROWS, 25
.equ CELLS, ROWS * COLUMNS
.equ BLANK, 0x0720                  ; a space, light grey on black
.equ CRTC_INDEX, 0x3d4
.equ CRTC_DATA, 0x3d5

start_screen:                       ; spoils EAX, ECX, EDI
    mov edi, SCREEN
    mov ecx, CELLS / 2
    mov eax, BLANK * 0x10001
    rep stosd
    mov dword ptr [cursor], 0
    jmp show_cursor

put_on_screen:                      ; AL, where newline and backspace move the cursor; keeps all registers
    pushad
    mov ebx, [cursor]
    cmp al, '\n'
    je .newline
    cmp al, '\b'
    je .back
    mov ah, BLANK >> 8
    mov [SCREEN + ebx * 2], ax
    inc ebx
    jmp .moved
.back:
    test ebx, ebx
    jz .moved
    dec ebx
    jmp .moved
.newline:
    mov eax, ebx
    xor edx, edx
    mov ecx, COLUMNS
    div ecx
    sub ebx, edx
    add ebx, COLUMNS
.moved:
    cmp ebx, CELLS
    jb .fits
    mov esi, SCREEN + 2 * COLUMNS   ; a line up
    mov edi, SCREEN
    mov ecx, (CELLS - COLUMNS) / 2
    rep movsd
    mov ecx, COLUMNS / 2
    mov eax, BLANK * 0x10001
    rep stosd
    sub ebx, COLUMNS
.fits:
    mov [cursor], ebx
    call show_cursor
    popad
    ret

show_cursor:                        ; spoils EAX, EDX
    mov dx, CRTC_INDEX
    mov al, 0x0e                    ; cursor location, high byte
    mov ah, [cursor + 1]
    out dx, ax                      ; index and data with one OUT
    mov al, 0x0f
    mov ah, [cursor]
    out dx, ax
    ret

.align 4
cursor: .long 0                     ; the cell for the next character
