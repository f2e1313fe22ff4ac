; Files: the one that `entry` describes, whole, to and from a buffer.

read_file:                          ; to EDI, which has room for MOST_FILE_BYTES; carry if the entry can't be; keeps all
    pushad
    mov ecx, [entry + FILE_SIZE]
    cmp ecx, MOST_FILE_BYTES
    ja .bad
    xor edx, edx
    add ecx, BLOCK_SIZE - 1
    shr ecx, 9
.next:
    cmp edx, ecx
    je .done                        ; equal: no carry
    mov ebx, [entry + FILE_BLOCKS + edx * 4]
    cmp ebx, [super + SUPER_DATA]
    jb .bad
    cmp ebx, [super + SUPER_BLOCKS]
    jae .bad
    call get_block
    push ecx
    mov ecx, BLOCK_SIZE / 4
    rep movsd
    pop ecx
    inc edx
    jmp .next
.bad:
    stc
.done:
    popad
    ret

; Data first, the directory last: whoever stops in between has lost free blocks, but no file is half there.
create_file:                        ; EDX bytes (not 0) at EDI, named by NAME_SIZE bytes at ESI; spoils all registers
    call find_free_entry
    jnc .room
    FAIL "the directory is full"
.room:
    push edi
    mov edi, entry
    mov ecx, NAME_SIZE / 4
    rep movsd
    pop edi
    mov [entry + FILE_SIZE], edx
    mov ecx, edx
    mov esi, edi
    call checksum
    mov [entry + FILE_CHECKSUM], eax
    xor ebp, ebp
.block:
    call allocate_block
    test eax, eax
    jnz .allocated
    FAIL "the disk is full"
.allocated:
    mov [entry + FILE_BLOCKS + ebp * 4], eax
    mov ebx, eax
    call new_block
    mov ecx, BLOCK_SIZE
    cmp ecx, edx
    jbe .whole
    mov ecx, edx
.whole:
    sub edx, ecx
    push esi
    xchg esi, edi
    rep movsb
    mov edi, esi
    pop esi
    call put_block
    inc ebp
    test edx, edx
    jnz .block
    call store_entry
    call flush_disk
    jc disk_failed
    ret

checksum:                           ; of the ECX bytes at ESI, to EAX; keeps all other registers
    push ecx
    push edx
    xor eax, eax
    push esi
    jecxz .done
.next:
    movzx edx, byte ptr [esi]
    inc esi
    rol eax, 1
    add eax, edx
    loop .next
.done:
    pop esi
    pop edx
    pop ecx
    ret
