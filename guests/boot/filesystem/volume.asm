; The file system as a whole: its super block, and which blocks are free.

.equ SUPER_BLOCKS, 8                ; fields of the super block; the magic number is before them
.equ SUPER_BITMAP, 12
.equ SUPER_BITMAP_BLOCKS, 16
.equ SUPER_DIRECTORY, 20
.equ SUPER_DIRECTORY_BLOCKS, 24
.equ SUPER_DATA, 28
.equ SUPER_MOUNTS, 32
.equ SUPER_CHECK, 36
.equ SUPER_WORDS, BLOCK_SIZE / 4
.equ MOST_BLOCKS, BLOCK_SIZE * 8    ; that one block of bitmap can speak of

mount:
    xor ebx, ebx
    call get_block
    cmp dword ptr [esi], 0x4c414d53 ; "SMAL"
    jne .foreign
    cmp dword ptr [esi + 4], 0x3153464c ; "LFS1"
    jne .foreign
    call sum_words
    test eax, eax
    jnz .damaged
    mov eax, [esi + SUPER_BLOCKS]
    cmp eax, [disk_blocks]
    ja .damaged
    cmp eax, MOST_BLOCKS
    ja .damaged
    cmp dword ptr [esi + SUPER_BITMAP_BLOCKS], 1
    jne .damaged
    inc dword ptr [esi + SUPER_MOUNTS]
    mov dword ptr [esi + SUPER_CHECK], 0
    call sum_words
    neg eax
    mov [esi + SUPER_CHECK], eax
    call put_block
    mov edi, super
    mov ecx, SUPER_CHECK / 4
    rep movsd
    SAY "filesystem: mounted, time "
    mov eax, [super + SUPER_MOUNTS]
    call print_decimal
    SAY ", "
    call count_free
    call print_decimal
    SAY " of "
    mov eax, [super + SUPER_BLOCKS]
    call print_decimal
    SAY " blocks free\n"
    ret
.foreign:
    FAIL "disk 0 has no file system that I know"
.damaged:
    FAIL "the super block is damaged"

sum_words:                          ; of the block at ESI, to EAX; spoils ECX
    xor eax, eax
    mov ecx, SUPER_WORDS
.next:
    add eax, [esi + ecx * 4 - 4]
    loop .next
    ret

count_free:                         ; to EAX; spoils EBX, ECX, ESI
    mov ebx, [super + SUPER_BITMAP]
    call get_block
    xor eax, eax
    xor ecx, ecx
.next:
    bt [esi], ecx
    cmc
    adc eax, 0
    inc ecx
    cmp ecx, [super + SUPER_BLOCKS]
    jb .next
    ret

allocate_block:                     ; to EAX, 0 if the disk is full; spoils EBX, ECX, ESI
    mov ebx, [super + SUPER_BITMAP]
    call get_block
    mov ecx, [super + SUPER_DATA]
.next:
    cmp ecx, [super + SUPER_BLOCKS]
    jae .full
    bts [esi], ecx
    jnc .found
    inc ecx
    jmp .next
.found:
    call put_block
    mov eax, ecx
    ret
.full:
    xor eax, eax
    ret

.align 4
super: .space SUPER_CHECK
