; Flat segments, and an IDT in which every vector has a gate: what has no handler says so and ends the kernel.

.equ CODE, 0x08
.equ DATA, 0x10

.macro GATE vector, handler         ; a 32-bit interrupt gate of ring 0; spoils EAX
    mov eax, \handler
    mov [idt + (\vector) * 8], ax
    shr eax, 16
    mov [idt + (\vector) * 8 + 6], ax
.endm

load_tables:                        ; spoils EAX
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    jmp CODE:.loaded
.loaded:
    ret

.equ WITH_ERROR_CODE, 0x27d00       ; a bit for each such exception: 8, 10-14, 17
.equ STUB, 7                        ; bytes of each

.align 8
stubs:
.rept 256
    .byte 0x6a, \+                  ; push the vector (sign-extended: what is above the byte is nothing)
    jmp near unexpected
.endr

unexpected:                         ; never returns
    cld
    pop ebx
    and ebx, 0xff
    xor ecx, ecx
    cmp ebx, 32
    jae .no_code
    mov eax, WITH_ERROR_CODE
    bt eax, ebx
    jnc .no_code
    pop ecx
.no_code:
    SAY "unexpected interrupt, vector "
    mov eax, ebx
    call print_decimal
    SAY ", error code "
    mov eax, ecx
    call print_hex
    SAY ", at "
    pop eax                         ; EIP
    call print_hex
    SAY ", CR2 "
    mov eax, cr2
    call print_hex
    SAY "\n"
    mov al, 1
    jmp exit

exit:                               ; AL to the debug exit port: 0 is well; never returns
    out 0xf4, al
.stop:                              ; a machine without that port
    cli
    hlt
    jmp .stop

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; CODE
    .quad 0x00cf93000000ffff        ; DATA
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.align 8
idt:
.rept 256
    .word (stubs + \+ * STUB) & 0xffff, CODE, 0x8e00, (stubs + \+ * STUB) >> 16
.endr
idt_pointer:
    .word idt_pointer - idt - 1
    .long idt
