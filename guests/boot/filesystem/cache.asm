; A write-through cache of blocks. What get_block gives stays there for the next SLOTS - 1 blocks at least.

.equ SLOTS, 16
.equ NO_BLOCK, 0xffffffff

get_block:                          ; block EBX: its address to ESI; keeps all other registers; disk errors end it all
    pushad
    call find_slot
    jnc .found
    call next_slot
    mov edi, esi
    push ecx
    call read_disk
    pop ecx
    jc disk_failed
    mov [slot_blocks + ecx * 4], ebx
.found:
    mov [esp + 4], esi              ; PUSHAD's ESI
    popad
    ret

put_block:                          ; block EBX, at ESI in the cache, has changed: to the disk; keeps all registers
    pushad
    call write_disk
    jc disk_failed
    popad
    ret

new_block:                          ; zeros for block EBX, which isn't read: address to ESI; keeps all other registers
    pushad
    call find_slot
    jnc .found
    call next_slot
    mov [slot_blocks + ecx * 4], ebx
.found:
    mov edi, esi
    xor eax, eax
    mov ecx, BLOCK_SIZE / 4
    rep stosd
    mov [esp + 4], esi
    popad
    ret

drop_cache:                         ; spoils EAX, ECX, EDI
    mov edi, slot_blocks
    mov ecx, SLOTS
    mov eax, NO_BLOCK
    rep stosd
    ret

find_slot:                          ; of block EBX: number to ECX, address to ESI; carry if it is in none
    xor ecx, ecx
    mov esi, slots
.look:
    cmp [slot_blocks + ecx * 4], ebx
    je .found                       ; equal: no carry
    add esi, BLOCK_SIZE
    inc ecx
    cmp ecx, SLOTS
    jb .look
    stc
.found:
    ret

next_slot:                          ; the one that was filled longest ago: number to ECX, address to ESI; spoils EAX
    mov ecx, [oldest_slot]
    lea eax, [ecx + 1]
    and eax, SLOTS - 1
    mov [oldest_slot], eax
    mov dword ptr [slot_blocks + ecx * 4], NO_BLOCK
    mov esi, ecx
    shl esi, 9
    add esi, slots
    ret

.align 4
oldest_slot: .long 0
slot_blocks: .fill SLOTS, 4, NO_BLOCK
slots: .space SLOTS * BLOCK_SIZE
