; real mode: down from protected mode, interrupts through the IVT, and up again
;
; The 16-bit part is copied to 0x10000, where real mode can reach it as segment 0x1000. The way there leads through
; 16-bit protected mode, because a processor in real mode keeps the limits and attributes that its segments had before.

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ CODE16, 0x18
.equ DATA16, 0x20
.equ SEGMENT, 0x1000                ; where the 16-bit part is in real mode
.equ LINEAR, SEGMENT << 4
.equ SECOND_IVT, 0x8000             ; an offset in that segment
.equ BASE16, part16

start:
    cli
    cld
    mov al, 0xff                    ; no interrupts from devices
    out 0x21, al
    out 0xa1, al
    mov esp, stack_top
    lgdt [gdt_pointer]
    jmp CODE32:.segments
.segments:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esi, part16
    mov edi, LINEAR
    mov ecx, part16_end - part16
    rep movsb
    jmp CODE16:protected16 - part16

; ------------------------------------------------------------------------------------------------- the 16-bit part
.align 16
part16:
.include "common/check16.asm"

protected16:                        ; still protected mode, but 16-bit code and 64 KiB segments
    mov ax, DATA16
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov sp, 0xfff0
    smsw ax
    and ax, 1
    CHECK16 1, "16-bit protected mode: PE is set"
    mov eax, cr0
    and eax, ~1
    mov cr0, eax                    ; PE off ...
    jmp SEGMENT:real - part16       ; ... and CS gets a real-mode value
real:
    mov ax, cs
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    smsw ax
    and ax, 1
    CHECK16 0, "real mode: PE is clear"

    xor ax, ax                      ; the IVT at 0: offset and segment of each handler, 4 bytes a vector
    mov es, ax
    xor di, di
    call fill_ivt
    lidt [ivt_pointer - part16]

    ; 1. The frame of INT: IP behind it, CS, FLAGS; IF and TF are clear in the handler, IRET restores them.
    push 0x0202
    popf
    int 0x20
.after_int:
    cli
    mov ax, [caught_vector - part16]
    CHECK16 0x20, "INT goes through the IVT"
    mov ax, [caught_ip - part16]
    CHECK16 .after_int - part16, "INT pushes the IP behind it"
    mov ax, [caught_cs - part16]
    CHECK16 SEGMENT, "INT pushes CS"
    mov ax, [caught_flags - part16]
    and ax, 0x0300
    CHECK16 0x0200, "INT pushes FLAGS"
    mov ax, [handler_flags - part16]
    and ax, 0x0300
    CHECK16 0, "INT clears IF"
    int3
    mov ax, [caught_vector - part16]
    CHECK16 3, "INT3 is vector 3"

    ; 2. Exceptions have the same frame, without error code; a fault's IP is that of the instruction.
    mov word ptr [resume - part16], .divided - part16
    xor cx, cx
    mov ax, 1
    cwd
.divide:
    div cx
.divided:
    mov ax, [caught_vector - part16]
    CHECK16 0, "DIV by 0 is #DE, vector 0"
    mov ax, [caught_ip - part16]
    CHECK16 .divide - part16, "#DE pushes the IP of the instruction"
    mov word ptr [resume - part16], .undefined - part16
    ud2
.undefined:
    mov ax, [caught_vector - part16]
    CHECK16 6, "UD2 is #UD, vector 6"
    mov word ptr [resume - part16], .bounded - part16
    mov ax, 11
    bound ax, [bounds - part16]
.bounded:
    mov ax, [caught_vector - part16]
    CHECK16 5, "BOUND outside is #BR, vector 5"
    mov word ptr [caught_vector - part16], 0xff
    mov ax, 10
    bound ax, [bounds - part16]
    mov ax, [caught_vector - part16]
    CHECK16 0xff, "BOUND inside is nothing"
    mov al, 0x7f
    add al, 1                       ; OF
    into
    mov ax, [caught_vector - part16]
    CHECK16 4, "INTO with OF is vector 4"
    mov word ptr [caught_vector - part16], 0xff
    xor ax, ax
    into
    mov ax, [caught_vector - part16]
    CHECK16 0xff, "INTO without OF is nothing"

    ; 3. TF: a trap after each instruction that begins with TF set, so not after the POPF that sets it.
    mov word ptr [traps - part16], 0
    push 0x0102
    popf
    nop
    nop
    push 2
    popf                            ; begins with TF set: the last one
    mov ax, [traps - part16]
    CHECK16 4, "TF traps after each of 4 instructions"

    ; 4. The IVT elsewhere, and shorter: what is beyond its limit is #GP.
    push cs
    pop es
    mov di, SECOND_IVT
    call fill_ivt
    mov word ptr es:[SECOND_IVT + 0x20 * 4], other_handler - part16
    lidt [second_pointer - part16]
    int 0x20
    mov ax, [caught_vector - part16]
    CHECK16 0x1234, "LIDT moves the IVT"
    mov word ptr [resume - part16], .beyond - part16
.int21:
    int 0x21
.beyond:
    mov ax, [caught_vector - part16]
    CHECK16 13, "INT beyond the IVT's limit is #GP, vector 13"
    mov ax, [caught_ip - part16]
    CHECK16 .int21 - part16, "#GP pushes the IP of the instruction"

    ; 5. Segments are paragraphs: the same code under another number.
    call SEGMENT - 0x10:far_routine - part16 + 0x100
    CHECK16 SEGMENT - 0x10, "far CALL loads CS"
    mov ax, 0xffff
    mov fs, ax
    mov ax, fs:[0x10]               ; 0xffff0 + 0x10: 1 MiB, where the multiboot header is
    CHECK16 0xb002, "0xffff:0x10 is the address 1 MiB"

    ; 6. "Unreal" mode: a limit loaded in protected mode stays; loading FS here changes its base only.
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, DATA32
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    mov ebx, multiboot_header
    mov ax, fs:[ebx]
    CHECK16 0xb002, "unreal mode: a big limit stays"
    mov ax, SEGMENT
    mov fs, ax
    sub ebx, LINEAR
    mov ax, fs:[ebx]
    CHECK16 0xb002, "unreal mode: MOV FS changes the base"

    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword CODE32:back

far_routine:
    mov ax, cs
    retf

fill_ivt:                           ; vectors 0-31 and 0x20 at ES:DI
    mov si, entries - part16
    mov cx, 0x21
.next:
    movsw
    mov ax, cs
    stosw
    loop .next
    ret

other_handler:
    mov word ptr cs:[caught_vector - part16], 0x1234
    iret

single_step:
    inc word ptr cs:[traps - part16]
    iret

entry_points:                       ; 4 bytes each
.rept 0x21
    push \+                         ; the vector
    jmp near caught
.endr

caught:
    push bp
    mov bp, sp                      ; BP, vector, IP, CS, FLAGS
    push ax
    pushf
    pop word ptr [handler_flags - part16]
    mov ax, [bp + 2]
    mov [caught_vector - part16], ax
    mov ax, [bp + 4]
    mov [caught_ip - part16], ax
    mov ax, [bp + 6]
    mov [caught_cs - part16], ax
    mov ax, [bp + 8]
    mov [caught_flags - part16], ax
    xor ax, ax                      ; where a fault is to go on; traps go on by themselves
    xchg ax, [resume - part16]
    test ax, ax
    jz .trap
    mov [bp + 4], ax
    jmp .end
.trap:
    mov ax, [bp + 2]
    cmp ax, 5
    jb .end
    cmp ax, 32
    jb wrong16                      ; a fault that nobody expects
.end:
    pop ax
    pop bp
    add sp, 2
    iret

.align 4
entries:
    .word entry_points - part16, single_step - part16
    .word entry_points - part16 + 10, entry_points - part16 + 15, entry_points - part16 + 20
    .word entry_points - part16 + 25, entry_points - part16 + 30
.rept 0x1a
    .word entry_points - part16 + (\+ + 7) * 5
.endr
caught_vector: .word 0
caught_ip: .word 0
caught_cs: .word 0
caught_flags: .word 0
handler_flags: .word 0
resume: .word 0
traps: .word 0
bounds: .word 5, 10                 ; inclusive
ivt_pointer:
    .word 0x3ff
    .long 0
second_pointer:
    .word 0x21 * 4 - 1
    .long LINEAR + SECOND_IVT
part16_end:

; -------------------------------------------------------------------------------------------------- 32 bits again
.code32
back:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, stack_top
    movzx eax, word ptr [LINEAR + check_number16 - part16]
    mov [check_number], eax         ; go on counting
    mov eax, cr0
    and eax, 1
    CHECK 1, "back in protected mode"
    jmp finish32

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 32-bit code, flat
    .quad 0x00cf93000000ffff        ; 0x10 32-bit data, flat
    .quad 0x00009b010000ffff        ; 0x18 16-bit code, 64 KiB from LINEAR
    .quad 0x000093010000ffff        ; 0x20 16-bit data, the same
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

.align 16
    .space 1024
stack_top:
image_end:
