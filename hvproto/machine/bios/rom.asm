; The firmware's ROM: entry points of the BIOS services and handlers of the device interrupts, segment F000
;
; A service halts. The machine knows the address behind the HLT, does the service on the registers and the memory, and
; lets the IRET give control back. Before that, most entries let interrupts through for a moment, as a BIOS does that
; takes its time: programs that keep them off and ask INT 1Ah, say, again and again rely on it.

.origin 0xe000
.code16

.macro SERVICE name
service_\name:
    hlt
    iret
.endm
.macro OPEN_SERVICE name
entry_\name:
    sti
    nop
    cli
service_\name:
    hlt
    iret
.endm

first_byte:
    OPEN_SERVICE video              ; INT 10h
    SERVICE equipment               ; INT 11h
    SERVICE memory_size             ; INT 12h
    OPEN_SERVICE disk               ; INT 13h
    OPEN_SERVICE serial             ; INT 14h
    SERVICE system                  ; INT 15h
    OPEN_SERVICE keyboard           ; INT 16h
    SERVICE printer                 ; INT 17h
    SERVICE no_system               ; INT 18h
    SERVICE boot                    ; INT 19h
    OPEN_SERVICE time               ; INT 1Ah
    SERVICE restart                 ; the reset vector's: prepares the firmware's memory, and boots
    SERVICE scan_code               ; called by IRQ 1's handler: AL is a byte of the keyboard, AH says what is left to do

wait_for_key:                       ; where INT 16h goes on as long as there is no key
    sti
    hlt
    cli
    jmp service_keyboard

wait_for_clock:                     ; where INT 15h, AH=86h, goes on until INT 70h has set bit 7 of 40:A0
    push ds
    push 0
    pop ds
.again:
    sti
    hlt
    cli
    test byte ptr [0x4a0], 0x80
    jz .again
    mov byte ptr [0x4a0], 0
    pop ds
    iret

end_of_interrupt:                   ; where a reset with shutdown code 5 goes on, and ...
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
resume:                             ; ... one with code 0Ah: on to where 40:67 points, with DS = 0
    jmp far [0x467]
return_far:                         ; with codes 0Bh and 0Ch, 40:67 is the stack, on which lies where to go on
    retf
return_from_interrupt:
    iret

stopped:                            ; where INT 18h ends: nothing is left to be done
    cli
    hlt
    jmp stopped

; ------------------------------------------------------------------------------------------------ device interrupts
timer:                              ; IRQ 0, INT 08h: counts ticks since midnight, and calls INT 1Ch
    push ds
    push ax
    push dx
    xor ax, ax
    mov ds, ax
    inc dword ptr [0x46c]
    cmp dword ptr [0x46c], 0x1800b0 ; so many ticks of 65536/1193182 s are a day
    jb .same_day
    mov dword ptr [0x46c], 0
    mov byte ptr [0x470], 1
.same_day:
    int 0x1c
    mov al, 0x20
    out 0x20, al
    pop dx
    pop ax
    pop ds
    iret

key:                                ; IRQ 1, INT 09h
    push ax
    in al, 0x60
    mov ah, 0x4f
    stc
    int 0x15                        ; a program may take the byte away, or put another one in its place
    mov ah, 0
    jnc .done
    pushf
    push cs
    call service_scan_code
.done:
    mov al, 0x20
    out 0x20, al
    cmp ah, 1
    jb .end
    je .print_screen
    cmp ah, 3
    jb .break
    je .pause
    cmp ah, 6
    je .restart
    mov al, ah                      ; 4, 5: the system request key goes down, up
    sub al, 4
    mov ah, 0x85
    sti
    int 0x15
.end:
    pop ax
    iret
.print_screen:
    sti
    int 0x05
    pop ax
    iret
.break:
    sti
    int 0x1b
    pop ax
    iret
.pause:                             ; until the next key, which clears bit 3 of 40:18
    push ds
    push 0
    pop ds
.paused:
    sti
    hlt
    cli
    test byte ptr [0x418], 0x08
    jnz .paused
    pop ds
    pop ax
    iret
.restart:                           ; Ctrl-Alt-Del
    push 0
    pop ds
    mov word ptr [0x472], 0x1234
    jmp 0xf000:0xfff0

real_time_clock:                    ; IRQ 8, INT 70h
    push ds
    push ax
    push 0
    pop ds
    mov al, 0x0b
    out 0x70, al
    in al, 0x71
    mov ah, al
    mov al, 0x0c                    ; reading register C ends the request
    out 0x70, al
    in al, 0x71
    and al, ah                      ; whose interrupt is enabled
    mov ah, al
    test ah, 0x40
    jz .not_periodic
    test byte ptr [0x4a0], 0x01     ; somebody waits, at 1,024 Hz
    jz .not_periodic
    sub dword ptr [0x49c], 976
    jnc .not_periodic
    and byte ptr [0x4a0], 0xfe
    push es
    push bx
    les bx, [0x498]
    or byte ptr es:[bx], 0x80
    pop bx
    pop es
    mov al, 0x0b
    out 0x70, al
    in al, 0x71
    and al, 0xbf
    out 0x71, al
.not_periodic:
    test ah, 0x20
    jz .no_alarm
    int 0x4a
.no_alarm:
    pop ax
    pop ds
    jmp slave_irq

disk:                               ; IRQ 14, INT 76h: 40:8E tells who waits that it has come
    push ds
    push ax
    xor ax, ax
    mov ds, ax
    mov byte ptr [0x48e], 0xff
    pop ax
    pop ds
slave_irq:                          ; IRQ 8 to 15, INT 70h to 77h
    push ax
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop ax
    iret

master_irq:                         ; IRQ 2 to 7, INT 0Ah to 0Fh
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
nothing:                            ; every vector that nobody serves
    iret

; ------------------------------------------------------------------------------------------------------------ tables
configuration:                      ; INT 15h, AH=C0h
    .word 8                         ; bytes that follow
    .byte 0xfc, 0x01, 0x00          ; model AT, submodel, revision
    .byte 0x74                      ; second interrupt controller, clock, keyboard intercept, extended BIOS data area
    .byte 0x40, 0, 0, 0             ; INT 16h, AH=09h
diskette_table_0:                   ; vector 1Eh; like the next ones, filled in at the start
    .space 11
diskette_table_1:
    .space 11
.align 16
disk_table_0:                       ; vectors 41h and 46h: fixed disk parameters
    .space 16
disk_table_1:
    .space 16

    .org 0xfff0
reset:                              ; where the processor begins, and where programs jump to start all over again
    jmp 0xf000:service_restart
    .ascii "01/01/26"
    .byte 0
    .byte 0xfc                      ; model: AT
    .byte 0
