; Characters that have come, from the keyboard or from COM1, in a ring until somebody reads them; and lines of them.

.equ RING_SIZE, 256                 ; a power of two
.equ LINE_SIZE, 128

queue_character:                    ; AL unless it is 0; called with interrupts off; spoils EBX
    test al, al
    jz .full
    mov ebx, [ring_end]
    sub ebx, [ring_begin]
    cmp ebx, RING_SIZE
    jae .full                       ; lost, as in any keyboard's buffer
    mov ebx, [ring_end]
    and ebx, RING_SIZE - 1
    mov [ring + ebx], al
    inc dword ptr [ring_end]
.full:
    ret

on_serial:
    pushad
.next:
    mov dx, COM1_STATUS
    in al, dx
    test al, RECEIVED
    jz .done
    mov dx, COM1
    in al, dx
    cmp al, '\r'                    ; what Enter sends on a serial line
    jne .not_enter
    mov al, '\n'
.not_enter:
    cmp al, 0x7f                    ; and what many a backspace does
    jne .not_delete
    mov al, '\b'
.not_delete:
    call queue_character
    jmp .next
.done:
    mov al, END_OF_INTERRUPT
    out MASTER, al
    popad
    iretd

read_character:                     ; waits for AL; spoils EBX
    cli
    mov ebx, [ring_begin]
    cmp ebx, [ring_end]
    jne .there
    sti                             ; takes effect behind the HLT: no interrupt gets lost between the two
    hlt
    jmp read_character
.there:
    and ebx, RING_SIZE - 1
    mov al, [ring + ebx]
    inc dword ptr [ring_begin]
    sti
    ret

read_line:                          ; to EDI, with a 0 instead of the newline; spoils EAX, EBX, ECX
    xor ecx, ecx
.next:
    call read_character
    cmp al, '\n'
    je .enter
    cmp al, '\b'
    je .back
    cmp al, ' '
    jb .next
    cmp ecx, LINE_SIZE - 1
    jae .next
    mov [edi + ecx], al
    inc ecx
    call put_character
    jmp .next
.back:
    jecxz .next
    dec ecx
    SAY "\b \b"
    jmp .next
.enter:
    call put_character
    mov byte ptr [edi + ecx], 0
    ret

.align 4
ring_begin: .long 0                 ; both only grow
ring_end: .long 0
ring: .space RING_SIZE
