; The commands. Each gets what stands behind its name at ESI, and may spoil every register.

.equ MODULE_SIZE, 16                ; of an entry: begin, end, command line, reserved

run_command_line:                   ; what follows run= on the loader's command line
    call command_line
    jc .none
.look:
    cmp byte ptr [esi], 0
    je .none
    cmp dword ptr [esi], 0x3d6e7572 ; "run="
    je .found
    inc esi
    jmp .look
.found:
    add esi, 4
.command:
    mov edi, line
    mov ecx, LINE_SIZE - 1
.copy:
    mov al, [esi]
    test al, al
    jz .copied
    inc esi
    cmp al, ';'
    je .copied
    jecxz .copy                     ; no line is as long: the rest of it is dropped
    stosb
    dec ecx
    jmp .copy
.copied:
    mov byte ptr [edi], 0
    push eax
    push esi
    mov esi, line
    call run_line
    pop esi
    pop eax
    test al, al
    jnz .command
.none:
    ret

command_line:                       ; to ESI; carry if the loader gave none
    mov ebx, [loader_info]
    test dword ptr [ebx + INFO_FLAGS], HAS_COMMAND_LINE
    stc
    jz .done
    mov esi, [ebx + INFO_COMMAND_LINE]
    clc
.done:
    ret

run_line:                           ; at ESI
    call skip_blanks
    cmp byte ptr [esi], 0
    je .empty
    mov ebx, commands
.next:
    mov edi, [ebx]
    test edi, edi
    jz .unknown
    mov edx, esi
.compare:
    mov al, [edi]
    test al, al
    jz .name_ends
    cmp al, [edx]
    jne .other
    inc edi
    inc edx
    jmp .compare
.name_ends:
    mov al, [edx]
    test al, al
    jz .found
    cmp al, ' '
    je .found
.other:
    add ebx, 8
    jmp .next
.found:
    mov esi, edx
    call skip_blanks
    jmp dword ptr [ebx + 4]
.unknown:
    SAY "unknown command: "
    call print
    SAY "\n"
.empty:
    ret

skip_blanks:                        ; at ESI
    cmp byte ptr [esi], ' '
    jne .done
    inc esi
    jmp skip_blanks
.done:
    ret

do_help:
    SAY "commands:"
    mov ebx, commands
.next:
    mov esi, [ebx]
    test esi, esi
    jz .done
    SAY " "
    call print
    add ebx, 8
    jmp .next
.done:
    SAY "\n"
    ret

do_ticks:
    mov eax, [ticks]
    call print_decimal
    SAY " ticks\n"
    ret

do_echo:
    call print
    SAY "\n"
    ret

do_args:
    call command_line
    jnc do_echo
    SAY "no command line\n"
    ret

do_mem:                             ; an entry's first field, its size, doesn't count itself
    mov ebx, [loader_info]
    test dword ptr [ebx + INFO_FLAGS], HAS_MAP
    jz .none
    mov esi, [ebx + INFO_MAP]
    mov edi, esi
    add edi, [ebx + INFO_MAP_SIZE]
.next:
    cmp esi, edi
    jae .done
    mov eax, [esi + 4]              ; begin, and its high half
    mov edx, [esi + 8]
    call print_address
    SAY " to "
    add eax, [esi + 12]
    adc edx, [esi + 16]
    sub eax, 1
    sbb edx, 0
    call print_address
    cmp dword ptr [esi + 20], 1
    je .available
    SAY ", kind "
    mov eax, [esi + 20]
    call print_decimal
    SAY "\n"
    jmp .entry_done
.available:
    SAY ", available\n"
.entry_done:
    add esi, [esi]
    add esi, 4
    jmp .next
.none:
    SAY "no memory map\n"
.done:
    ret

print_address:                      ; EDX:EAX; keeps all registers
    xchg eax, edx
    call print_hex
    xchg eax, edx
    call print_digits
    ret

do_mods:
    mov ebx, [loader_info]
    xor ecx, ecx
    test dword ptr [ebx + INFO_FLAGS], HAS_MODULES
    jz .count
    mov ecx, [ebx + INFO_MODULE_COUNT]
.count:
    SAY "modules: "
    mov eax, ecx
    call print_decimal
    SAY "\n"
    mov ebx, [ebx + INFO_MODULES]
    jecxz .done
.next:
    mov eax, [ebx]
    call print_hex
    SAY ", "
    neg eax
    add eax, [ebx + 4]
    call print_decimal
    SAY " bytes: "
    mov esi, [ebx + 8]
    call print
    SAY "\n"
    add ebx, MODULE_SIZE
    loop .next
.done:
    ret

do_off:
    SAY "off\n"
    call power_off
    SAY "nothing switches this machine off\n"
    ret

.align 4
commands:
    .long name_help, do_help
    .long name_ticks, do_ticks
    .long name_mem, do_mem
    .long name_echo, do_echo
    .long name_args, do_args
    .long name_mods, do_mods
    .long name_off, do_off
    .long 0
name_help: .asciz "help"
name_ticks: .asciz "ticks"
name_mem: .asciz "mem"
name_echo: .asciz "echo"
name_args: .asciz "args"
name_mods: .asciz "mods"
name_off: .asciz "off"
