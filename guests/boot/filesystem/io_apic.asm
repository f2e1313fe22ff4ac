; The I/O APIC (Intel 82093AA, order no. 290566): its inputs, each with an entry of 64 bits that says where it leads.

.equ IO_APIC_SELECT, 0x00           ; the index of a register ...
.equ IO_APIC_WINDOW, 0x10           ; ... and the register
.equ IO_APIC_VERSION, 0x01          ; bits 23:16: the last input
.equ IO_APIC_TABLE, 0x10            ; two registers an input

.equ LOW_ACTIVE, 0x2000
.equ LEVEL_TRIGGERED, 0x8000

start_io_apic:                      ; masks all inputs; spoils EAX, ECX, EDX
    mov eax, IO_APIC_VERSION
    call io_apic_read
    shr edx, 16
    movzx ecx, dl
    inc ecx
    mov eax, IO_APIC_TABLE
.input:
    mov edx, MASKED
    call io_apic_write
    add eax, 2
    loop .input
    ret

io_apic_read:                       ; register EAX to EDX
    push ebx
    mov ebx, [io_apic]
    mov [ebx + IO_APIC_SELECT], eax
    mov edx, [ebx + IO_APIC_WINDOW]
    pop ebx
    ret

io_apic_write:                      ; EDX to register EAX
    push ebx
    mov ebx, [io_apic]
    mov [ebx + IO_APIC_SELECT], eax
    mov [ebx + IO_APIC_WINDOW], edx
    pop ebx
    ret

route_line:                         ; ISA line ECX to vector EDX of this processor; keeps all registers
    pushad
    mov bl, [line_kinds + ecx]
    mov al, bl
    and al, 0b0011
    cmp al, 0b0011                  ; otherwise high active, as ISA lines are
    jne .high
    or edx, LOW_ACTIVE
.high:
    and bl, 0b1100
    cmp bl, 0b1100                  ; otherwise edges
    jne .edge
    or edx, LEVEL_TRIGGERED
.edge:
    movzx eax, byte ptr [line_inputs + ecx]
    lea eax, [eax * 2 + IO_APIC_TABLE + 1]
    mov esi, edx
    mov edx, [local_apic]
    mov edx, [edx + APIC_ID]
    and edx, 0xff000000             ; the destination has the same place in the entry
    call io_apic_write
    dec eax
    mov edx, esi                    ; last: this unmasks it
    call io_apic_write
    popad
    ret
