; stores that the very next instructions depend on, with no jump in between: into their own code, and into descriptors

.include "common/setup32.asm"

.macro SHOW register                ; the low byte, as two digits
    mov ebx, \register
    mov eax, ebx
    shr eax, 4
    and eax, 15
    call digit
    mov eax, ebx
    and eax, 15
    call digit
.endm

attack:
    mov ecx, 0x10
    mov edx, 0x20
    mov byte ptr [SCRATCH], 0x5a
    inc byte ptr [first]            ; read, changed, written: INC ECX is INC EDX now, and is so once
first:
    inc ecx
    inc ecx
    SHOW ecx
    SHOW edx
    mov dword ptr [second], 0xc005010f
    mov word ptr [second + 4], SCRATCH >> 8
second:
    .byte 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0   ; SGDT [SCRATCH + 0xc0]: the guest's own, not the hypervisor's
    mov eax, [SCRATCH + 0xc2]
    sub eax, offset gdt
    SHOW eax
    mov esp, offset third + 4
    push 0x58909c90                 ; NOP, PUSHFD, NOP, POP EAX: interrupts are off, and the stack is in the way
    nop
    nop
third:
    nop
    nop
    nop
    nop
    mov esp, KERNEL_STACK
    shr eax, 8
    and eax, 2
    SHOW eax
    cld
    mov esi, offset code_to_copy
    mov edi, offset fourth
    mov ecx, 8
    rep movsb                       ; the last bytes of it are executed next
fourth:
    .space 8, 0x90
    SHOW edx

    mov dword ptr [gdt + 0x30], (SCRATCH & 0xffff) << 16 | 0xffff
    mov dword ptr [gdt + 0x34], 0x00cf9300 | SCRATCH >> 16
    mov eax, 0x30
    mov fs, eax
    mov edx, fs:[0]
    add word ptr [gdt + 0x32], 0x100 ; the base; the register keeps the old one until it is loaded
    mov ecx, fs:[0]
    mov fs, eax
    mov ebp, fs:[-0x100]
    RESUME gone
    and byte ptr [gdt + 0x35], 0x7f
    mov fs, eax                     ; #NP
    END 1
gone:
    SHOW edx
    SHOW ecx
    SHOW ebp
    RESUME over
    mov word ptr [last], 0x0b0f
last:
    nop                             ; UD2
    nop
over:
    END 11

code_to_copy:
    mov dl, 0x77
    mov dh, 0x66
    .space 4, 0x90
