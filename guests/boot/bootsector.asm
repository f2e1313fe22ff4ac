; a boot sector: BIOS services in real mode, then protected mode and long mode, each step checked
;
; The firmware loads the first sector to 0:7C00 and enters it. It gets the rest of itself by INT 13h, by cylinder, head
; and sector as well as by number, asks for the memory map, opens address line 20, and goes up to 64-bit mode. What it
; finds it writes to port 0xe9; the end is by port 0xf4, with 0 if all is well and 1 at the first check that fails.

.origin 0x7c00
.code16

.equ CODE64, 0x08
.equ CODE32, 0x10
.equ DATA32, 0x18
.equ BUFFER, 0x9000                 ; free memory: what is read and asked for
.equ PAGES, 0x10000                 ; three page tables
.equ STAGE2_SECTORS, (image_end - stage2) / 512

.macro CHECK condition, text        ; goes on if the flags say so
    j\condition 1f
    mov si, 3f
    call print
    jmp failed
3:  .asciz \text
    .byte 0
1:  mov si, 3b
    call print
    mov si, ok
    call print
.endm

start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    jmp 0:.here                     ; some firmwares come here as 07C0:0000
.here:
    cld
    mov [drive], dl
    mov si, banner                  ; for people: on the screen
.next:
    lodsb
    test al, al
    jz .shown
    mov ah, 0x0e                    ; teletype
    mov bx, 0x0007
    int 0x10
    jmp .next
.shown:
    mov ax, 0x0200 + STAGE2_SECTORS ; read what follows: cylinder 0, head 0, from sector 2 on
    mov cx, 0x0002
    mov dh, 0
    mov dl, [drive]
    mov bx, stage2
    int 0x13
    jc .no_disk
    cmp word ptr [signature], 0x600d
    je stage2
.no_disk:
    mov si, unreadable
    call print
failed:
    mov al, 1
    jmp exit
exit:                               ; AL: 0 is well
    out 0xf4, al
.stop:
    cli
    hlt
    jmp .stop

print:                              ; DS:SI to port 0xe9; changes AL, SI
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp print
.end:
    ret

banner:     .asciz "boot sector\r\n"
unreadable: .asciz "the rest of the disk: WRONG\n"
ok:         .asciz ": ok\n"
drive:      .byte 0

    .org 0x7dfe
    .word 0xaa55

; ---------------------------------------------------------------------------------------------- the following sectors
stage2:
    CHECK e, "INT 13h, AH=02h reads by cylinder, head and sector"

    mov ah, 0x41                    ; are there extensions?
    mov bx, 0x55aa
    mov dl, [drive]
    int 0x13
    jc .installed
    cmp bx, 0xaa55
.installed:
    CHECK e, "INT 13h, AH=41h: there are extensions"
    mov ah, 0x42
    mov dl, [drive]
    mov si, packet
    int 0x13
    jc .by_number
    cmp dword ptr [BUFFER], 0x0bad5eed
.by_number:
    CHECK e, "INT 13h, AH=42h reads by number"
    mov ah, 0x08
    mov dl, [drive]
    xor di, di
    int 0x13
    jc .shaped
    mov al, cl
    and al, 0x3f                    ; sectors of a track
    cmp al, 63
.shaped:
    CHECK e, "INT 13h, AH=08h: a track has 63 sectors"
    push ds
    pop es
    mov ax, 0x0201
    mov cx, 0x0040                  ; there is no sector 0
    mov dx, 0x00ff
    mov bx, BUFFER
    int 0x13
    mov al, 0
    adc al, al
    cmp al, 1
    CHECK e, "INT 13h: a drive that isn't there gives carry"

    mov ah, 0x02                    ; a character by the screen's memory and back
    mov bh, 0
    mov dx, 0x0a05                  ; row 10, column 5
    int 0x10
    mov ax, 0x0e58
    int 0x10
    mov ah, 0x03
    int 0x10
    cmp dx, 0x0a06
    CHECK e, "INT 10h, AH=0Eh moves the cursor"
    mov dx, 0x0a05
    mov ah, 0x02
    int 0x10
    mov ah, 0x08
    int 0x10
    cmp al, 0x58
    CHECK e, "INT 10h, AH=08h reads the screen"
    mov ax, 0xb800
    mov es, ax
    cmp byte ptr es:[(10 * 80 + 5) * 2], 0x58
    CHECK e, "the screen is at B800:0000"
    push ds
    pop es

    int 0x12
    cmp ax, 600
    CHECK ae, "INT 12h: more than 600 KiB"
    xor ebx, ebx                    ; look for the range from 1 MiB on
.range:
    mov eax, 0xe820
    mov edx, 0x534d4150             ; "SMAP"
    mov ecx, 20
    mov di, BUFFER
    int 0x15
    jc .found
    cmp eax, 0x534d4150
    jne .found
    cmp dword ptr [BUFFER], 0x100000
    je .found
    test ebx, ebx
    jnz .range
    inc ebx                         ; not equal
.found:
    CHECK e, "INT 15h, E820h: there is a range from 1 MiB on"
    mov ax, 0xe801
    int 0x15
    jc .large
    cmp ax, 1024
.large:
    CHECK ae, "INT 15h, E801h: at least 1 MiB above 1 MiB"

    mov ah, 0                       ; ticks are counted as soon as interrupts are let through
    int 0x1a
    mov bx, dx
    sti
.tick:
    hlt
    mov ah, 0
    int 0x1a
    cmp dx, bx
    je .tick
    CHECK ne, "INT 1Ah: the ticks go on"
    mov ah, 1
    int 0x16
    CHECK z, "INT 16h, AH=01h: no key"

    mov ax, 0x2401
    int 0x15
    mov al, 0
    adc al, al
    cmp al, 0
    CHECK e, "INT 15h, 2401h opens address line 20"
    mov ax, 0xffff
    mov fs, ax
    mov dword ptr [BUFFER], 0x12345678
    mov dword ptr fs:[BUFFER + 0x10], 0x87654321
    cmp dword ptr [BUFFER], 0x12345678
    CHECK e, "addresses don't wrap at 1 MiB"

    cli
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword CODE32:protected

.code32
.macro PUTS text
    mov esi, 3f
    call print32
    jmp 1f
3:  .asciz \text
1:
.endm
protected:
    mov ax, DATA32
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7c00
    PUTS "protected mode: ok\n"
    mov edi, PAGES                  ; the first 2 MiB, one to one
    mov cr3, edi
    xor eax, eax
    mov ecx, 3 * 1024
    rep stosd
    mov dword ptr [PAGES], PAGES + 0x1003
    mov dword ptr [PAGES + 0x1000], PAGES + 0x2003
    mov dword ptr [PAGES + 0x2000], 0x83
    mov eax, cr4
    or al, 0x20                     ; PAE
    mov cr4, eax
    mov ecx, 0xc0000080             ; EFER.LME
    rdmsr
    or ah, 1
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp CODE64:long

print32:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp print32
.end:
    ret

.code64
long:
    mov rax, 0x123456789abcdef0
    shr rax, 60
    cmp al, 1
    jne .failed
    lea rsi, [long_text]
.next:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp .next
.failed:
    mov al, 1
.end:
    out 0xf4, al
.stop:
    cli
    hlt
    jmp .stop

long_text:  .asciz "long mode: ok\ndone\n"
.align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        ; 0x08 64-bit code
    .quad 0x00cf9b000000ffff        ; 0x10 32-bit code, flat
    .quad 0x00cf93000000ffff        ; 0x18 data, flat
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
packet:                             ; one sector to 0:BUFFER, the last one of this image
    .byte 16, 0
    .word 1, BUFFER, 0
    .quad STAGE2_SECTORS
signature: .word 0x600d
    .org (($ - 1) / 512 + 1) * 512
    .long 0x0bad5eed
    .space 508
image_end:
