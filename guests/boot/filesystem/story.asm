; What is done with the file system, step by step.

.equ NEW_SIZE, 1500                 ; of the file that is written: two blocks and most of a third one

check_files:                        ; lists them and compares each with its checksum
    call first_entry
.next:
    jc .done
    cmp byte ptr [entry], 0
    je .free
    SAY "filesystem:   "
    call print_name
    SAY ", "
    mov eax, [entry + FILE_SIZE]
    call print_decimal
    SAY " bytes"
    mov edi, contents
    call read_file
    jc .bad
    mov esi, contents
    mov ecx, [entry + FILE_SIZE]
    call checksum
    cmp eax, [entry + FILE_CHECKSUM]
    jne .bad
    SAY "\n"
    inc dword ptr [files]
.free:
    call next_entry
    jmp .next
.bad:
    FAIL ", damaged"
.done:
    SAY "filesystem: files checked: "
    mov eax, [files]
    call print_decimal
    SAY "\n"
    ret

print_first_file:
    call first_entry
    jc .none
    cmp byte ptr [entry], 0
    je .none
    mov edi, contents
    call read_file
    mov ecx, [entry + FILE_SIZE]
    mov esi, contents
    jecxz .none
.next:
    lodsb
    call put_character
    loop .next
.none:
    ret

write_new_file:                     ; boot-N.txt for the Nth mount
    mov eax, [super + SUPER_MOUNTS]
    mov edi, new_name + 5
    call store_decimal
    mov dword ptr [edi], 0x7478742e ; ".txt"
    mov edi, new_name
    call find_name
    jc .new
    FAIL "the file to write is there already"
.new:
    mov eax, [super + SUPER_MOUNTS] ; lines that differ from mount to mount
    mov edi, contents
    mov ebx, 1
.line:
    mov esi, new_text
    mov ecx, new_text_end - new_text
    rep movsb
    mov eax, [super + SUPER_MOUNTS]
    call store_decimal
    mov al, '.'
    stosb
    mov eax, ebx
    call store_decimal
    mov al, '\n'
    stosb
    inc ebx
    cmp edi, contents + NEW_SIZE
    jb .line
    mov byte ptr [contents + NEW_SIZE - 1], '\n'
    mov edx, NEW_SIZE
    mov edi, contents
    mov esi, new_name
    call create_file
    mov eax, [entry + FILE_CHECKSUM]
    mov [written_checksum], eax
    SAY "filesystem: wrote "
    jmp tell_file

read_new_file:                      ; from the directory on
    mov edi, contents
    mov ecx, MOST_FILE_BYTES / 4
    xor eax, eax
    rep stosd
    mov edi, new_name
    call find_name
    jc .lost
    mov edi, contents
    call read_file
    jc .lost
    mov esi, contents
    mov ecx, [entry + FILE_SIZE]
    call checksum
    cmp eax, [written_checksum]
    jne .lost
    cmp ecx, NEW_SIZE
    jne .lost
    SAY "filesystem: read again "
    jmp tell_file
.lost:
    FAIL "what was written can't be read again"

tell_file:                          ; `entry`
    call print_name
    SAY ", "
    mov eax, [entry + FILE_SIZE]
    call print_decimal
    SAY " bytes, checksum "
    mov eax, [entry + FILE_CHECKSUM]
    call print_hex
    SAY "\n"
    ret

store_decimal:                      ; EAX as digits to EDI, which then is behind them; spoils EAX, ECX, EDX
    push ebx
    xor ecx, ecx
    mov ebx, 10
.divide:
    xor edx, edx
    div ebx
    push edx
    inc ecx
    test eax, eax
    jnz .divide
.digit:
    pop eax
    add al, '0'
    stosb
    loop .digit
    pop ebx
    ret

report_and_end:                     ; every transfer, and the flush and the identification, had its interrupt
    SAY "filesystem: interrupts: disk "
    mov eax, [disk_interrupts]
    call print_decimal
    SAY ", keys "
    mov eax, [key_codes]
    call print_decimal
    SAY ", characters "
    mov eax, [characters]
    call print_decimal
    SAY "\nfilesystem: ok, blocks read "
    mov eax, [blocks_read]
    call print_decimal
    SAY ", written "
    mov eax, [blocks_written]
    call print_decimal
    SAY "\n"
    mov eax, [blocks_read]
    add eax, [blocks_written]
    add eax, 2
    cmp eax, [disk_interrupts]
    je .well
    FAIL "a disk interrupt is missing"
.well:
    mov al, 0
    jmp exit

new_text: .ascii "written at mount and line "
new_text_end:
.align 4
files: .long 0
written_checksum: .long 0
new_name: .ascii "boot-"
    .space NAME_SIZE - 5
contents: .space MOST_FILE_BYTES
