; virtual-8086 mode: a monitor in ring 0, and below it 16-bit code that believes it has a processor in real mode
;
; With IOPL below 3, CLI, STI, PUSHF, POPF, INT n and IRET are #GP, and the monitor does them on a flag of its own. With
; IOPL 3 the processor does them itself. Ports are up to the I/O map in both cases.

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/catch32.asm"
.include "common/tss32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ TASK, 0x18
.equ SEGMENT, 0x1000                ; where the 16-bit part is
.equ LINEAR, SEGMENT << 4
.equ BASE16, part16
.equ FLAG_IF, 0x200
.equ FLAG_VM, 0x20000

.macro V86 code, eflags, next       ; run `code` in virtual-8086 mode; what the monitor doesn't know goes on at `next`
    TRY \next
    mov ebx, \code - part16
    mov ecx, FLAG_VM + \eflags
    jmp to_v86
.endm

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
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    mov esi, part16
    mov edi, LINEAR
    mov ecx, part16_end - part16
    rep movsb
    mov dword ptr [0x21 * 4], (SEGMENT << 16) + handler - part16    ; the IVT of the 16-bit code
    GATE 13, CODE32, monitor, 0x8e
    GATE 0x30, CODE32, stubs + 0x30 * STUB, 0xee

    ; 1. IOPL 0. The 16-bit code has checks of its own; HLT ends it.
    V86 iopl0, 0x0002, .iopl0
.iopl0:
    call from_v86
    CAUGHT 0x0d0000, "HLT is #GP(0)"
    mov eax, [caught_flags]
    and eax, 0x23000
    CHECK FLAG_VM, "the frame has VM and IOPL 0"
    mov ebx, [caught_frame]
    movzx eax, word ptr [ebx + 24]
    CHECK SEGMENT, "the frame has DS above SS"
    mov eax, [monitor_ds]
    CHECK 0, "DS is null in the handler"
    mov eax, [caught_frame]
    CHECK ring0_top - 36, "9 words on the stack of ring 0"
    mov eax, [emulated]
    CHECK 12, "instructions that the monitor has done"
    V86 load_cr0, 0x0002, .load_cr0
.load_cr0:
    CAUGHT 0x0d0000, "MOV from CR0 is #GP(0)"
    V86 sldt_ax, 0x0002, .sldt
.sldt:
    CAUGHT 0x060000, "SLDT is #UD"
    V86 divide, 0x0002, .divide
.divide:
    CAUGHT 0x000000, "#DE comes by the IDT"
    V86 breakpoint, 0x0002, .breakpoint
.breakpoint:
    CAUGHT 0x0d001a, "INT3 with a gate of DPL 0 is #GP(3 * 8 + 2), whatever IOPL"
    mov byte ptr [idt + 3 * 8 + 5], 0xee
    V86 breakpoint, 0x0002, .breakpoint3
.breakpoint3:
    CAUGHT 0x030000, "INT3 with a gate of DPL 3 comes by the IDT"

    ; 2. IOPL 3.
    mov dword ptr [emulated], 0
    V86 iopl3, 0x3002, .iopl3
.iopl3:
    call from_v86
    CAUGHT 0x300000, "IOPL 3: INT n comes by the IDT"
    mov eax, [caught_flags]
    and eax, FLAG_VM + 0x3000 + FLAG_IF
    CHECK FLAG_VM + 0x3000 + FLAG_IF, "IOPL 3: STI has set IF itself"
    mov eax, [emulated]
    CHECK 1, "IOPL 3: the monitor has done the IN only"
    V86 int31, 0x3002, .int31
.int31:
    CAUGHT 0x0d018a, "IOPL 3: INT n with a gate of DPL 0 is #GP(n * 8 + 2)"
    jmp finish32

to_v86:                             ; at SEGMENT:BX with EFLAGS = ECX
    mov eax, [check_number]
    mov [LINEAR + check_number16 - part16], ax
    mov eax, SEGMENT
    push eax                        ; GS
    push eax                        ; FS
    push eax                        ; DS
    push eax                        ; ES
    push eax                        ; SS
    push 0xfff0                     ; ESP
    push ecx
    push eax                        ; CS
    push ebx
    iret

from_v86:                           ; go on counting
    movzx eax, word ptr [LINEAR + check_number16 - part16]
    mov [check_number], eax
    ret

; ---------------------------------------------------------------------------------------------------- the monitor
.equ FRAME_IP, 36                   ; above PUSHAD's registers and the error code
.equ FRAME_CS, 40
.equ FRAME_FLAGS, 44
.equ FRAME_SP, 48
.equ FRAME_SS, 52

monitor:                            ; #GP
    test dword ptr [esp + 12], FLAG_VM
    jz .not_ours
    cmp dword ptr [esp], 0          ; an error code: not the instruction as such, but a gate
    jne .not_ours
    pushad
    mov ebp, esp
    mov edx, ds
    mov eax, DATA32
    mov ds, eax
    mov [monitor_ds], edx
    movzx ebx, word ptr [ebp + FRAME_CS]
    shl ebx, 4
    movzx eax, word ptr [ebp + FRAME_IP]
    add ebx, eax                    ; EBX: the instruction
    movzx ecx, word ptr [ebp + FRAME_SS]
    shl ecx, 4
    movzx eax, word ptr [ebp + FRAME_SP]
    add ecx, eax                    ; ECX: the top of the stack
    inc dword ptr [emulated]
    mov al, [ebx]
    cmp al, 0xcd
    je .int
    cmp al, 0xcf
    je .iret
    cmp al, 0xfa
    je .cli
    cmp al, 0xfb
    je .sti
    cmp al, 0x9c
    je .pushf
    cmp al, 0x9d
    je .popf
    cmp al, 0xec
    je .in
    dec dword ptr [emulated]
    popad
.not_ours:
    jmp stubs + 13 * STUB
.int:
    call virtual_flags
    mov [ecx - 2], dx
    mov dx, [ebp + FRAME_CS]
    mov [ecx - 4], dx
    mov dx, [ebp + FRAME_IP]
    add dx, 2
    mov [ecx - 6], dx
    sub word ptr [ebp + FRAME_SP], 6
    movzx eax, byte ptr [ebx + 1]
    mov edx, [eax * 4]              ; the IVT
    mov [ebp + FRAME_IP], dx
    shr edx, 16
    mov [ebp + FRAME_CS], dx
    mov dword ptr [virtual_if], 0
    jmp .return
.iret:
    mov dx, [ecx]
    mov [ebp + FRAME_IP], dx
    mov dx, [ecx + 2]
    mov [ebp + FRAME_CS], dx
    add word ptr [ebp + FRAME_SP], 6
    mov dx, [ecx + 4]
    call set_virtual_flags
    jmp .return
.cli:
    mov dword ptr [virtual_if], 0
    jmp .next
.sti:
    mov dword ptr [virtual_if], FLAG_IF
    jmp .next
.pushf:
    call virtual_flags
    mov [ecx - 2], dx
    sub word ptr [ebp + FRAME_SP], 2
    jmp .next
.popf:
    mov dx, [ecx]
    add word ptr [ebp + FRAME_SP], 2
    call set_virtual_flags
    jmp .next
.in:
    mov byte ptr [ebp + 28], 0x5a   ; PUSHAD's AL: what our port says
.next:
    inc word ptr [ebp + FRAME_IP]
.return:
    popad
    add esp, 4                      ; the error code
    iret

virtual_flags:                      ; -> DX
    mov edx, [ebp + FRAME_FLAGS]
    and edx, 0xdff - FLAG_IF        ; neither IOPL nor NT
    or edx, [virtual_if]
    ret

set_virtual_flags:                  ; from DX
    movzx edx, dx
    mov eax, edx
    and eax, FLAG_IF
    mov [virtual_if], eax
    and edx, 0xcd5                  ; the arithmetic flags and DF
    and dword ptr [ebp + FRAME_FLAGS], ~0xcd5
    or [ebp + FRAME_FLAGS], edx
    ret

; ------------------------------------------------------------------------------------------------- the 16-bit part
.align 16
part16:
.include "common/check16.asm"

iopl0:
    int 0x21
    CHECK16 0x4321, "INT n reaches the handler in the IVT, and IRET comes back"
    sti
    pushf
    pop ax
    and ax, FLAG_IF
    CHECK16 FLAG_IF, "STI sets the IF that PUSHF shows"
    cli
    pushf
    pop ax
    and ax, FLAG_IF
    CHECK16 0, "CLI clears it"
    push FLAG_IF + 2
    popf
    pushf
    pop ax
    and ax, FLAG_IF
    CHECK16 FLAG_IF, "POPF sets it"
    int 0x21
    pushf
    pop bx
    mov ax, 0x4321
    and bx, FLAG_IF
    add ax, bx
    CHECK16 0x4321 + FLAG_IF, "IRET restores it"
    in al, 0xe9
    xor ah, ah
    CHECK16 0xe9, "IN from a port that the I/O map opens"
    mov dx, 0x80
    in al, dx
    xor ah, ah
    CHECK16 0x5a, "IN from one that it doesn't"
    mov ax, SEGMENT + 1
    mov fs, ax
    mov ax, fs:[number - part16 - 16]
    CHECK16 0xabcd, "segments are paragraphs"
    hlt

iopl3:
    sti
    pushf
    pop ax
    and ax, 0x3200
    CHECK16 0x3200, "IOPL 3: STI sets IF, PUSHF shows IOPL"
    cli
    pushf
    pop ax
    and ax, FLAG_IF
    CHECK16 0, "IOPL 3: CLI clears IF"
    push 2                          ; IOPL 0, if POPF could
    popf
    pushf
    pop ax
    and ax, 0x3000
    CHECK16 0x3000, "IOPL 3: POPF doesn't change IOPL"
    pushfd
    pop eax
    shr eax, 16
    and ax, 3
    CHECK16 0, "IOPL 3: PUSHFD shows neither VM nor RF"
    mov dx, 0x80
    in al, dx
    xor ah, ah
    CHECK16 0x5a, "IOPL 3: the I/O map still counts"
    sti
    int 0x30

load_cr0:
    mov eax, cr0
sldt_ax:
    sldt ax
divide:
    xor cx, cx
    div cx
breakpoint:
    int3
int31:
    int 0x31
handler:
    mov ax, 0x4321
    iret
number: .word 0xabcd
part16_end:
.code32

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
    TSS_DESCRIPTOR tss, tss_end - tss - 1, 0x89     ; 0x18
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

virtual_if: .long 0
emulated: .long 0
monitor_ds: .long 0

.align 256
tss:
    .long 0, ring0_top, DATA32
    .space TSS_IO_MAP - 12
    .word TSS_SIZE
    .fill 0xe8 / 8, 1, 0xff         ; the I/O map: a bit for each port, 0 is open
    .byte 0xfd                      ; 0xe9
    .byte 0xef                      ; 0xf4
    .byte 0xff, 0xff                ; and a byte of ones behind it
tss_end:

.align 16
    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
