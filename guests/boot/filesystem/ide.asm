; The first IDE disk, a block at a time, by programmed I/O (ATA-1: ANSI X3.221-1994; FLUSH CACHE: ATA-4). Each command
; ends with an interrupt; until then the processor halts.

.equ IDE_DATA, 0x1f0
.equ IDE_COUNT, 0x1f2
.equ IDE_LBA_LOW, 0x1f3
.equ IDE_LBA_MIDDLE, 0x1f4
.equ IDE_LBA_HIGH, 0x1f5
.equ IDE_DRIVE, 0x1f6
.equ IDE_COMMAND, 0x1f7             ; reads as the status
.equ IDE_CONTROL, 0x3f6             ; reads as the status, too, and leaves the interrupt alone

.equ IDE_BUSY, 0x80
.equ IDE_READY, 0x40
.equ IDE_FAULT, 0x20
.equ IDE_DATA_REQUEST, 0x08
.equ IDE_ERROR, 0x01
.equ MASTER_BY_BLOCK, 0xe0          ; the first drive, addressed by block number

.equ READ_SECTORS, 0x20
.equ WRITE_SECTORS, 0x30
.equ FLUSH_CACHE, 0xe7
.equ IDENTIFY_DEVICE, 0xec
.equ PATIENCE, 500                  ; ticks: five seconds

.equ BLOCK_SIZE, 512

start_ide:                          ; carry if there is no disk; its size to disk_blocks
    OUTB IDE_DRIVE, MASTER_BY_BLOCK
    mov dx, IDE_COMMAND
    in al, dx
    cmp al, 0xff                    ; nothing drives the bus
    je .none
    test al, al
    jz .none
    OUTB IDE_CONTROL, 0             ; with interrupts
    xor ebx, ebx
    mov al, IDENTIFY_DEVICE
    call disk_command
    jc .none
    call disk_wait
    jc .none
    mov edi, identity
    call take_block
    mov eax, [identity + 60 * 2]    ; words 60 and 61: how many blocks can be addressed
    mov [disk_blocks], eax
    SAY "filesystem: disk 0 has "
    call print_decimal
    SAY " sectors\n"
    clc
    ret
.none:
    stc
    ret

read_disk:                          ; block EBX to EDI; carry if that fails; spoils EAX, ECX, EDX
    mov al, READ_SECTORS
    call disk_command
    jc .done
    call disk_wait
    jc .done
    inc dword ptr [blocks_read]
    call take_block
.done:
    ret

write_disk:                         ; block EBX from ESI; carry if that fails; spoils EAX, ECX, EDX
    mov al, WRITE_SECTORS
    call disk_command
    jc .done
    mov ecx, IDE_DATA_REQUEST       ; no interrupt comes before the data
    call disk_poll
    jc .done
    push esi
    mov dx, IDE_DATA
    mov ecx, BLOCK_SIZE / 2
    rep outsw
    pop esi
    inc dword ptr [blocks_written]
    call disk_wait
.done:
    ret

flush_disk:                         ; what the disk itself still holds; carry if that fails; spoils EAX, ECX, EDX
    xor ebx, ebx
    mov al, FLUSH_CACHE
    call disk_command
    jc .done
    call disk_wait
.done:
    ret

take_block:                         ; a block that is offered, to EDI; spoils ECX, EDX
    push edi
    mov dx, IDE_DATA
    mov ecx, BLOCK_SIZE / 2
    rep insw
    pop edi
    clc
    ret

disk_command:                       ; AL for block EBX; carry if the disk isn't ready; spoils EAX, ECX, EDX
    push eax
    mov ecx, IDE_READY
    call disk_poll
    pop ecx
    jc .done
    mov byte ptr [disk_answered], 0
    OUTB IDE_COUNT, 1
    mov eax, ebx
    mov dx, IDE_LBA_LOW
    out dx, al
    shr eax, 8
    mov dx, IDE_LBA_MIDDLE
    out dx, al
    shr eax, 8
    mov dx, IDE_LBA_HIGH
    out dx, al
    shr eax, 8
    and al, 0x0f
    or al, MASTER_BY_BLOCK
    mov dx, IDE_DRIVE
    out dx, al
    mov al, cl
    mov dx, IDE_COMMAND
    out dx, al
    clc
.done:
    ret

disk_poll:                          ; until it is not busy and has a bit of CL; carry if never; spoils EAX, ECX, EDX
    push ebx
    mov ebx, [ticks]
    add ebx, PATIENCE
    mov dx, IDE_CONTROL
    in al, dx                       ; four reads: the status is valid 400 ns after a command
    in al, dx
    in al, dx
.look:
    in al, dx
    test al, IDE_BUSY
    jnz .again
    test al, cl
    jnz .there
.again:
    cmp [ticks], ebx
    js .look
    pop ebx
    stc
    ret
.there:
    pop ebx
    clc
    ret

disk_wait:                          ; for the interrupt; carry for errors, or if it never comes; spoils EAX, ECX
    mov ecx, [ticks]
    add ecx, PATIENCE
.look:
    cli
    cmp byte ptr [disk_answered], 0
    jne .answered
    sti                             ; takes effect behind the HLT: the interrupt can't get lost between the two
    hlt
    cmp [ticks], ecx
    js .look
    stc
    ret
.answered:
    sti
    test byte ptr [disk_status], IDE_ERROR | IDE_FAULT
    jz .done                        ; TEST clears carry
    stc
.done:
    ret

.align 4
disk_blocks: .long 0
blocks_read: .long 0
blocks_written: .long 0
identity: .space BLOCK_SIZE
