; The boot sector of a small operating system in real mode: it finds SYSTEM.BIN in the root directory of a FAT12 volume,
; loads it along its chain of clusters to 1000:0000, and enters it with the drive's number in DL.
;
; On a partition, the sector before it (the disk's first) has loaded this one; BPB_HIDDEN says how many sectors precede.

.origin 0x7c00
.code16

BPB = 0x7c00
RESERVED = BPB + 0x0e
FATS = BPB + 0x10
ROOT_ENTRIES = BPB + 0x11
FAT_SECTORS = BPB + 0x16
PER_TRACK = BPB + 0x18
HEADS = BPB + 0x1a
HIDDEN = BPB + 0x1c
ROOT = 0x7e00                       ; one sector of the directory at a time, ...
FAT = 0x8000                        ; ... and all of the first FAT

    jmp near start
    .space 59
start:
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ds, ax
    mov es, ax
    cld
    sti
    mov [drive], dl

    mov ax, [RESERVED]              ; the FAT
    mov [next], ax
    mov cx, [FAT_SECTORS]
    mov bx, FAT
.fat:
    call read
    loop .fat

    mov al, [FATS]
    cbw
    mul word ptr [FAT_SECTORS]
    add ax, [RESERVED]
    mov [next], ax                  ; the root directory
    mov dx, [ROOT_ENTRIES]
    mov bp, dx
    shr dx, 4
    add ax, dx
    mov [data], ax

.directory:
    mov bx, ROOT
    call read
    mov di, ROOT
.entry:
    push di
    mov si, name
    mov cx, 11
    repe cmpsb
    pop di
    je .found
    add di, 32
    dec bp
    jz .missing
    cmp di, ROOT + 512
    jb .entry
    jmp .directory

.found:
    mov si, [di + 26]
    mov ax, 0x1000
    mov es, ax
    xor bx, bx
.cluster:
    lea ax, [si - 2]
    add ax, [data]
    mov [next], ax
    call read
    mov di, si                      ; the next cluster: 12 bits at one and a half times the number
    shr di, 1
    add di, si
    mov ax, [FAT + di]
    test si, 1
    jz .even
    shr ax, 4
.even:
    and ax, 0xfff
    mov si, ax
    cmp ax, 0xff8
    jb .cluster
    mov dl, [drive]
    jmp 0x1000:0

.missing:
    mov si, words
.say:
    lodsb
    test al, al
    jz .stop
    mov ah, 0x0e
    int 0x10
    jmp .say
.stop:
    int 0x18

read:                               ; sector number `next` of the volume to ES:BX; both go on
    pusha
    mov ax, [next]
    inc word ptr [next]
    xor dx, dx
    add ax, [HIDDEN]
    adc dx, [HIDDEN + 2]
    div word ptr [PER_TRACK]
    mov cx, dx
    inc cx
    xor dx, dx
    div word ptr [HEADS]
    mov ch, al
    shl ah, 6
    or cl, ah
    mov dh, dl
    mov dl, [drive]
    mov di, 3                       ; a diskette may need a third attempt
.attempt:
    mov ax, 0x0201
    int 0x13
    jnc .read
    xor ah, ah
    int 0x13
    dec di
    jnz .attempt
    mov si, words
    jmp start.say
.read:
    popa
    add bx, 512
    ret

name:  .ascii "SYSTEM  BIN"
words: .asciz "no system"
drive: .byte 0
next:  .word 0
data:  .word 0

    .org 0x7dfe
    .word 0xaa55
