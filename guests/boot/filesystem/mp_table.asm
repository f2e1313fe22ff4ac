; Where the APICs are and what is wired to them: the MultiProcessor Specification 1.4 (Intel, order no. 242016).

.equ MP_POINTER, 0x5f504d5f         ; "_MP_"
.equ MP_TABLE, 0x504d4350           ; "PCMP"
.equ EBDA_SEGMENT, 0x40e            ; in the BIOS data area: the extended BIOS data area ...
.equ BASE_MEMORY, 0x413             ; ... and the end of base memory in KiB
.equ ISA_LINES, 16

find_mp_table:                      ; to mp_table; carry if there is none (chapter 4: the three places, in this order)
    movzx esi, word ptr [EBDA_SEGMENT]
    shl esi, 4
    jz .base
    mov ecx, 1024 / 16
    call .search
    jnc .found
.base:
    movzx esi, word ptr [BASE_MEMORY]
    shl esi, 10
    jz .rom
    sub esi, 1024
    mov ecx, 1024 / 16
    call .search
    jnc .found
.rom:
    mov esi, 0xf0000
    mov ecx, 0x10000 / 16
    call .search
    jc .none
.found:
    test byte ptr [esi + 12], 0x80  ; is there an IMCR that leads the 8259s past the APICs?
    jz .no_imcr
    mov al, 0x70
    out 0x22, al
    in al, 0x23
    or al, 1
    out 0x23, al
.no_imcr:
    mov esi, [esi + 4]
    test esi, esi                   ; 0: one of the default configurations, which have no table
    jz .none
    cmp dword ptr [esi], MP_TABLE
    jne .none
    movzx ecx, word ptr [esi + 4]
    call sums_to_zero
    jne .none
    mov [mp_table], esi
    clc
    ret
.none:
    stc
    ret

.search:                            ; ECX times 16 bytes from ESI on
    cmp dword ptr [esi], MP_POINTER
    jne .next
    push ecx
    movzx ecx, byte ptr [esi + 8]   ; its length, in 16 bytes
    shl ecx, 4
    call sums_to_zero
    pop ecx
    clc
    je .done
.next:
    add esi, 16
    loop .search
    stc
.done:
    ret

sums_to_zero:                       ; ZF: whether the ECX bytes at ESI add up to 0; spoils ECX, EDX
    xor edx, edx
    jecxz .done
.next:
    add dl, [esi + ecx - 1]
    loop .next
.done:
    test dl, dl
    ret

parse_mp_table:                     ; processors are entries of 20 bytes, all others of 8
    xor ecx, ecx
.identity:                          ; what isn't said is wired one to one
    mov [line_inputs + ecx], cl
    inc ecx
    cmp ecx, ISA_LINES
    jb .identity
    mov esi, [mp_table]
    mov eax, [esi + 36]
    mov [local_apic], eax
    movzx ecx, word ptr [esi + 34]
    add esi, 44
    jecxz .done
.entry:
    mov al, [esi]
    cmp al, 0
    je .processor
    cmp al, 1
    je .bus
    cmp al, 2
    je .io_apic
    cmp al, 3
    je .interrupt
    jmp .next
.processor:
    add esi, 12
    jmp .next
.bus:
    cmp dword ptr [esi + 2], 0x20415349 ; "ISA "
    jne .next
    mov al, [esi + 1]
    mov [isa_bus], al
    jmp .next
.io_apic:
    test byte ptr [esi + 3], 1      ; usable?
    jz .next
    cmp dword ptr [io_apic], 0      ; ISA lines are the first one's
    jne .next
    mov eax, [esi + 4]
    mov [io_apic], eax
    jmp .next
.interrupt:
    cmp byte ptr [esi + 1], 0       ; the kind that has a vector
    jne .next
    mov al, [esi + 4]
    cmp al, [isa_bus]
    jne .next
    movzx edx, byte ptr [esi + 5]
    cmp edx, ISA_LINES
    jae .next
    mov al, [esi + 7]
    mov [line_inputs + edx], al
    mov al, [esi + 2]
    mov [line_kinds + edx], al
.next:
    add esi, 8
    loop .entry
.done:
    cmp dword ptr [io_apic], 0
    jne .complete
    FAIL "the MP table has no I/O APIC"
.complete:
    SAY "filesystem: MP table: local APIC at "
    mov eax, [local_apic]
    call print_hex
    SAY ", I/O APIC at "
    mov eax, [io_apic]
    call print_hex
    SAY ", the disk at input "
    movzx eax, byte ptr [line_inputs + DISK_LINE]
    call print_decimal
    SAY "\n"
    ret

.align 4
mp_table: .long 0
local_apic: .long 0                 ; physical addresses, mapped one to one
io_apic: .long 0
isa_bus: .byte 0xff
line_inputs: .space ISA_LINES       ; the I/O APIC's input of each ISA interrupt line ...
line_kinds: .space ISA_LINES        ; ... its polarity (bits 1:0) and trigger mode (3:2), 0 as is usual on the bus
