; Switching off as ACPI 1.0b has it: RSDP -> RSDT -> FADT gives the port, \_S5 in the DSDT the value (4.7.3.2.1, 7.5.2).
; The DSDT is searched for the name, not interpreted: firmwares write \_S5 as a package of constants.

.equ SLEEP_ENABLE, 0x2000
.equ SCI_ENABLE, 0x0001
.equ FADT_DSDT, 40
.equ FADT_SMI_COMMAND, 48
.equ FADT_ACPI_ENABLE, 52
.equ FADT_PM1A_CONTROL, 64
.equ QEMU_POWER, 0x604              ; without tables: QEMU's own port, and that of other emulators

power_off:                          ; returns if that doesn't help
    call find_rsdp
    jc .no_tables
    mov esi, [esi + 16]             ; RSDT: pointers from offset 36 on
    mov ecx, [esi + 4]
    sub ecx, 36
    shr ecx, 2
    jz .no_tables
.table:
    mov ebx, [esi + 32 + ecx * 4]
    cmp dword ptr [ebx], 0x50434146 ; "FACP"
    je .found
    loop .table
    jmp .no_tables
.found:
    call find_s5
    jc .no_tables
    mov edi, eax
    mov edx, [ebx + FADT_PM1A_CONTROL]
    in ax, dx
    test ax, SCI_ENABLE             ; ACPI mode already?
    jnz .acpi
    mov edx, [ebx + FADT_SMI_COMMAND]
    test edx, edx
    jz .acpi
    mov al, [ebx + FADT_ACPI_ENABLE]
    out dx, al
    mov edx, [ebx + FADT_PM1A_CONTROL]
    mov ecx, [ticks]
    add ecx, 100                    ; for a second at most
.wait:
    in ax, dx
    test ax, SCI_ENABLE
    jnz .acpi
    hlt
    cmp ecx, [ticks]
    jns .wait
.acpi:
    mov eax, edi
    shl eax, 10
    or eax, SLEEP_ENABLE
    mov edx, [ebx + FADT_PM1A_CONTROL]
    out dx, ax
    jmp .asleep
.no_tables:
    mov dx, QEMU_POWER
    mov ax, SLEEP_ENABLE
    out dx, ax
.asleep:
    mov ecx, [ticks]
    add ecx, 100                    ; it may take a moment: a second at most
.moment:
    hlt
    cmp ecx, [ticks]
    jns .moment
    ret

find_rsdp:                          ; to ESI; carry if there is none
    movzx esi, word ptr [0x40e]     ; the first KiB of the extended BIOS data area
    shl esi, 4
    jz .rom
    mov ecx, 1024 / 16
    call .search
    jnc .done
.rom:
    mov esi, 0xe0000
    mov ecx, 0x20000 / 16
.search:
    cmp dword ptr [esi], 0x20445352 ; "RSD "
    jne .next
    cmp dword ptr [esi + 4], 0x20525450 ; "PTR "
    jne .next
    push ecx
    mov ecx, 20                     ; which add up to 0
    xor edx, edx
.sum:
    add dl, [esi + ecx - 1]
    loop .sum
    pop ecx
    test dl, dl                     ; clears carry
    jz .done
.next:
    add esi, 16
    loop .search
    stc
.done:
    ret

; 12 PkgLength NumElements SLP_TYPa ...: the package behind the name. A number is 00, 01, or 0a and a byte.
find_s5:                            ; of the FADT at EBX: SLP_TYPa to EAX; carry if there is none
    mov esi, [ebx + FADT_DSDT]
    mov ecx, [esi + 4]
    sub ecx, 36 + 8
    jbe .none
    add esi, 36
.look:
    cmp dword ptr [esi], 0x5f35535f ; "_S5_"
    je .named
.on:
    inc esi
    loop .look
.none:
    stc
    ret
.named:
    cmp byte ptr [esi + 4], 0x12
    jne .on
    movzx eax, byte ptr [esi + 5]   ; bits 7:6: how many bytes of length follow this one
    shr eax, 6
    movzx edx, byte ptr [esi + eax + 7]
    cmp dl, 0x0a
    jne .small
    movzx edx, byte ptr [esi + eax + 8]
.small:
    mov eax, edx
    clc
    ret
