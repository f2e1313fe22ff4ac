; The firmware's ROM: entry points of the BIOS services and handlers of the device interrupts, segment F000
;
; A service's entry halts. The machine knows the address behind the HLT, does the service on the registers and the
; memory, and lets the IRET give control back.

.origin 0xe000
.code16

.macro SERVICE name
service_\name:
    hlt
    iret
.endm

first_byte:
    SERVICE video                   ; INT 10h
    SERVICE equipment               ; INT 11h
    SERVICE memory_size             ; INT 12h
    SERVICE disk                    ; INT 13h
    SERVICE serial                  ; INT 14h
    SERVICE system                  ; INT 15h
    SERVICE keyboard                ; INT 16h
    SERVICE printer                 ; INT 17h
    SERVICE no_system               ; INT 18h
    SERVICE boot                    ; INT 19h
    SERVICE time                    ; INT 1Ah
    SERVICE restart                 ; the reset vector's: prepares the firmware's memory, and boots
    SERVICE scan_code               ; called by IRQ 1's handler: a byte of the keyboard to be put into the queue

wait_for_key:                       ; where INT 16h goes on as long as there is no key
    sti
    hlt
    cli
    jmp service_keyboard

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
    pushf
    push cs
    call service_scan_code          ; AL: the scan code
    mov al, 0x20
    out 0x20, al
    pop ax
    iret

real_time_clock:                    ; IRQ 8, INT 70h: reading register C ends the request
    push ax
    mov al, 0x0c
    out 0x70, al
    in al, 0x71
    pop ax
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
    .byte 0, 0, 0, 0
disk_parameters:                    ; INT 1Eh's: of a diskette drive, for programs that copy it
    .byte 0xdf, 0x02, 0x25, 0x02, 18, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08
.align 16
disk_table_0:                       ; vectors 41h and 46h: fixed disk parameters, filled in at the start
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
