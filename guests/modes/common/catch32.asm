; Exceptions in 32-bit code: an IDT whose handlers note what came and go on where the kernel said.
;
; TRY says where to go on after the next exception: there, in ring 0, on the stack that the kernel had at TRY, whatever
; the exception interrupted. Without a TRY the handler returns by IRET, but a fault that nobody expects ends the kernel.
; The including kernel has CODE32 and DATA32, flat segments of ring 0, and loads the IDT by `lidt [idt_pointer]`.

.macro TRY next
    mov dword ptr [caught], 0xbad
    mov dword ptr [resume], \next
    mov [resume_esp], esp
.endm

.macro CAUGHT wanted, text          ; vector * 0x10000 + error code (0 where there is none)
    mov eax, [caught]
    CHECK \wanted, \text
.endm

.macro GATE vector, selector, offset, kind          ; kind: the access byte; spoils EAX
    mov eax, \offset
    mov [idt + (\vector) * 8], ax
    mov word ptr [idt + (\vector) * 8 + 2], \selector
    mov word ptr [idt + (\vector) * 8 + 4], (\kind) << 8
    shr eax, 16
    mov [idt + (\vector) * 8 + 6], ax
.endm

.equ WITH_ERROR_CODE, 0x27d00       ; a bit for each such vector: 8, 10-14, 17
.equ VECTORS, 0x81
.equ STUB, 7                        ; bytes of each

.align 8
stubs:
.rept VECTORS
    .byte 0x6a, \+                  ; push the vector (what is above the byte is nothing)
    jmp near catch
.endr

catch:
    pushad
    mov eax, DATA32                 ; the interrupted code may have had anything there
    mov ds, eax
    mov es, eax
    cld
    movzx eax, byte ptr [esp + 32]
    lea ebx, [esp + 36]             ; where the frame is
    mov ecx, eax
    shl ecx, 16
    cmp eax, 32
    jae .no_code
    mov edx, WITH_ERROR_CODE
    bt edx, eax
    jnc .no_code
    or ecx, [ebx]
    add ebx, 4
.no_code:
    mov [caught], ecx
    mov [caught_frame], ebx
    mov eax, [ebx]
    mov [caught_eip], eax
    movzx eax, word ptr [ebx + 4]
    mov [caught_cs], eax
    mov eax, [ebx + 8]
    mov [caught_flags], eax
    mov eax, [ebx + 12]             ; ESP and SS are there only if the ring has changed
    mov [caught_esp], eax
    movzx eax, word ptr [ebx + 16]
    mov [caught_ss], eax
    mov eax, [esp + 28]             ; PUSHAD's
    mov [caught_eax], eax
    pushfd
    pop dword ptr [handler_flags]
    mov eax, cr2
    mov [caught_cr2], eax
    xor eax, eax
    xchg eax, [resume]
    test eax, eax
    jz .return
    mov esp, [resume_esp]
    jmp eax
.return:
    cmp ecx, 0x200000               ; an INT of ours?
    jae .by_iret
    lea eax, [ecx - 0x010000]       ; or one of the traps, 1 to 4?
    cmp eax, 0x040000
    jb .by_iret
    mov eax, ecx
    xor edx, edx
    jmp wrong32
.by_iret:
    mov [esp + 32], ebx             ; in place of the vector
    popad
    pop esp                         ; the frame, without error code
    iret

.align 4
resume: .long 0
resume_esp: .long 0
caught: .long 0
caught_frame: .long 0
caught_eip: .long 0
caught_cs: .long 0
caught_flags: .long 0
caught_esp: .long 0
caught_ss: .long 0
caught_cr2: .long 0
caught_eax: .long 0
handler_flags: .long 0
.align 8
idt:
.rept VECTORS
    .word (stubs + \+ * STUB) & 0xffff, CODE32, 0x8e00, (stubs + \+ * STUB) >> 16
.endr
idt_pointer:
    .word idt_pointer - idt - 1
    .long idt
