; One block from the first disk: ATA, programmed I/O, polled. 512 bytes come through a 16-bit port in 256 reads.

.equ ATA, 0x1f0                     ; the data port; the other registers follow it
.equ ATA_COUNT, ATA + 2
.equ ATA_LBA_LOW, ATA + 3
.equ ATA_LBA_MIDDLE, ATA + 4
.equ ATA_LBA_HIGH, ATA + 5
.equ ATA_DRIVE, ATA + 6
.equ ATA_COMMAND, ATA + 7           ; reads as the status
.equ ATA_CONTROL, 0x3f6

.equ ATA_BUSY, 0x80
.equ ATA_DATA_REQUEST, 0x08
.equ ATA_ERROR, 0x01
.equ ATA_READ_SECTORS, 0x20

.equ BLOCK, 7

.code64
read_disk:
    out_port ATA_CONTROL, 2         ; no interrupts: we poll
    out_port ATA_DRIVE, 0xe0        ; the first drive, addressed by block number, whose bits 24-27 are 0
    mov dx, ATA_COMMAND
    in al, dx
    cmp al, 0xff                    ; nothing drives the bus
    je .none
    test al, al                     ; no such drive
    jz .none
    out_port ATA_COUNT, 1
    out_port ATA_LBA_LOW, BLOCK
    out_port ATA_LBA_MIDDLE, 0
    out_port ATA_LBA_HIGH, 0
    out_port ATA_COMMAND, ATA_READ_SECTORS
    mov dx, ATA_COMMAND
    mov ecx, 1000000                ; a drive that takes longer is dead
.poll:
    in al, dx
    test al, ATA_BUSY
    jnz .again
    test al, ATA_ERROR
    jnz .failed
    test al, ATA_DATA_REQUEST
    jnz .ready
.again:
    dec ecx
    jnz .poll
.failed:
    say text_disk_failed
    inc dword ptr [failures]
    ret
.none:
    say text_no_disk
    ret
.ready:
    mov dx, ATA
    mov rdi, HIGH + disk_block      ; through the upper half; it is read where it lies
    mov ecx, 256
    rep insw

    say text_disk
    mov rsi, disk_block             ; the first line: up to a line feed or 60 characters
    mov ecx, 60
.character:
    lodsb
    cmp al, ' '
    jb .end
    cmp al, '~'
    ja .end
    call print_character
    dec ecx
    jnz .character
.end:
    say text_disk_sum
    mov rsi, disk_block             ; the sum: rotate left by one bit, add eight bytes, 64 times
    mov ecx, 64
    xor ebx, ebx
.add:
    lodsq
    rol rbx, 1
    add rbx, rax
    dec ecx
    jnz .add
    mov rax, rbx
    call print_hexadecimal
    say new_line
    ret

text_disk: .asciz "guest64: block 7 of my disk begins '"
text_disk_sum: .asciz "', sum "
text_no_disk: .asciz "guest64: I have no disk\n"
text_disk_failed: .asciz "guest64: my disk does not answer\n"
