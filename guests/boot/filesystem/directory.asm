; The directory: entries of 64 bytes, of which one at a time is in `entry`, with its number in `entry_number`.

.equ ENTRY_SIZE, 64
.equ ENTRIES_PER_BLOCK, BLOCK_SIZE / ENTRY_SIZE
.equ NAME_SIZE, 24
.equ FILE_SIZE, 24                  ; fields; the name is before them
.equ FILE_CHECKSUM, 28
.equ FILE_BLOCKS, 32
.equ MOST_FILE_BLOCKS, 8
.equ MOST_FILE_BYTES, MOST_FILE_BLOCKS * BLOCK_SIZE

first_entry:                        ; carry if there is none; keeps all registers
    mov dword ptr [entry_number], 0
    jmp load_entry

next_entry:                         ; carry if that was the last one; keeps all registers
    inc dword ptr [entry_number]

load_entry:                         ; number entry_number to `entry`; carry behind the end; keeps all registers
    pushad
    call locate_entry
    jc .done
    mov edi, entry
    mov ecx, ENTRY_SIZE / 4
    rep movsd                       ; leaves carry alone
.done:
    popad
    ret

store_entry:                        ; `entry` to number entry_number, and to the disk; keeps all registers
    pushad
    call locate_entry
    mov edi, esi
    mov esi, entry
    mov ecx, ENTRY_SIZE / 4
    rep movsd
    call get_block
    call put_block
    popad
    ret

locate_entry:                       ; number entry_number: block to EBX, address in the cache to ESI; spoils EAX, EDX
    mov eax, [entry_number]
    xor edx, edx
    mov ebx, ENTRIES_PER_BLOCK
    div ebx
    cmp eax, [super + SUPER_DIRECTORY_BLOCKS]
    cmc                             ; carry: not below
    jc .done
    mov ebx, eax
    add ebx, [super + SUPER_DIRECTORY]
    call get_block
    shl edx, 6
    add esi, edx                    ; no carry: it is an address
.done:
    ret

find_name:                          ; NAME_SIZE bytes at EDI: to `entry`; carry if there is none; keeps all registers
    pushad
    call first_entry
.look:
    jc .done
    mov esi, entry
    mov edx, edi
    mov ecx, NAME_SIZE
    repe cmpsb
    mov edi, edx
    clc
    je .done
    call next_entry
    jmp .look
.done:
    popad
    ret

find_free_entry:                    ; carry if the directory is full; keeps all registers
    call first_entry
.look:
    jc .done
    cmp byte ptr [entry], 0         ; at most equal: no carry
    je .done
    call next_entry
    jmp .look
.done:
    ret

print_name:                         ; of `entry`; keeps all registers
    pushad
    mov esi, entry
    mov ecx, NAME_SIZE
.next:
    lodsb
    test al, al
    jz .done
    call put_character
    loop .next
.done:
    popad
    ret

.align 4
entry_number: .long 0
entry: .space ENTRY_SIZE
