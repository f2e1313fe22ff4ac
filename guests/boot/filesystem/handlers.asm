; Interrupt vectors and their handlers. The upper half of a vector is its priority: the timer's is the highest.

.equ KEYBOARD_LINE, 1
.equ SERIAL_LINE, 4
.equ DISK_LINE, 14
.equ SECOND_DISK_LINE, 15

.equ KEYBOARD_VECTOR, 0x31
.equ SERIAL_VECTOR, 0x34
.equ DISK_VECTOR, 0x4e
.equ SECOND_DISK_VECTOR, 0x4f
.equ TIMER_VECTOR, 0x50
.equ ERROR_VECTOR, 0xfe
.equ SPURIOUS_VECTOR, 0xff          ; its low four bits are 1 in every APIC

.macro END_INTERRUPT                ; spoils EAX
    mov eax, [local_apic]
    mov dword ptr [eax + APIC_EOI], 0
.endm

.macro ROUTE line, vector, handler  ; spoils EAX, ECX, EDX
    GATE \vector, \handler
    mov ecx, \line
    mov edx, \vector
    call route_line
.endm

route_interrupts:                   ; spoils EAX, ECX, EDX
    ROUTE KEYBOARD_LINE, KEYBOARD_VECTOR, on_keyboard
    ROUTE SERIAL_LINE, SERIAL_VECTOR, on_serial
    ROUTE DISK_LINE, DISK_VECTOR, on_disk
    ROUTE SECOND_DISK_LINE, SECOND_DISK_VECTOR, on_second_disk
    call take_keys                  ; an input that is asserted already makes no edge any more
    call take_characters
    ret

on_timer:
    push eax
    inc dword ptr [ticks]
    END_INTERRUPT
    pop eax
    iretd

on_disk:
    push eax
    push edx
    inc dword ptr [disk_interrupts]
    mov dx, IDE_COMMAND
    in al, dx                       ; the status: reading it tells the disk that the interrupt was seen
    mov [disk_status], al
    mov byte ptr [disk_answered], 1
    END_INTERRUPT
    pop edx
    pop eax
    iretd

on_second_disk:                     ; the other channel, which nobody uses
    push eax
    push edx
    mov dx, 0x177
    in al, dx
    END_INTERRUPT
    pop edx
    pop eax
    iretd

on_keyboard:
    push eax
    call take_keys
    END_INTERRUPT
    pop eax
    iretd

take_keys:                          ; keys are counted; spoils EAX
    in al, 0x64
    test al, 1
    jz .done
    in al, 0x60
    inc dword ptr [key_codes]
    jmp take_keys
.done:
    ret

on_serial:
    push eax
    push edx
    call take_characters
    END_INTERRUPT
    pop edx
    pop eax
    iretd

take_characters:                    ; so are characters; spoils EAX, EDX
    mov dx, COM1_STATUS
    in al, dx
    test al, RECEIVED
    jz .done
    mov dx, COM1
    in al, dx
    inc dword ptr [characters]
    jmp take_characters
.done:
    ret

on_spurious:                        ; no end of interrupt
    iretd

on_apic_error:
    FAIL "the local APIC reports an error"

.align 4
ticks: .long 0
disk_interrupts: .long 0
key_codes: .long 0
characters: .long 0
disk_status: .byte 0
disk_answered: .byte 0
