; Exceptions in long mode: as catch32.asm has them, with gates of 16 bytes and frames that always hold RSP and SS.
;
; The including kernel has CODE64 and loads the IDT by `lidt [idt64_pointer]`.

.macro TRY64 next
    mov dword ptr [caught], 0xbad
    mov dword ptr [resume], \next
    mov [resume_rsp], rsp
.endm

.macro CAUGHT64 wanted, text        ; vector * 0x10000 + error code (0 where there is none)
    mov eax, [caught]
    CHECK64 \wanted, \text
.endm

.equ WITH_ERROR_CODE, 0x27d00       ; a bit for each such vector: 8, 10-14, 17
.equ VECTORS, 0x81
.equ STUB, 7                        ; bytes of each

.code64
.align 8
stubs:
.rept VECTORS
    .byte 0x6a, \+                  ; push the vector (what is above the byte is nothing)
    jmp near catch
.endr

catch:
    push rax
    push rbx
    push rcx
    push rdx
    cld
    mov [caught_rax], rax
    movzx eax, byte ptr [rsp + 32]
    lea rbx, [rsp + 40]             ; where the frame is
    mov ecx, eax
    shl ecx, 16
    cmp eax, 32
    jae .no_code
    mov edx, WITH_ERROR_CODE
    bt edx, eax
    jnc .no_code
    or rcx, [rbx]
    add rbx, 8
.no_code:
    mov [caught], ecx
    mov [caught_frame], rbx
    mov rax, [rbx]
    mov [caught_rip], rax
    mov rax, [rbx + 8]
    mov [caught_cs], rax
    mov rax, [rbx + 16]
    mov [caught_flags], rax
    mov rax, [rbx + 24]
    mov [caught_rsp], rax
    mov rax, [rbx + 32]
    mov [caught_ss], rax
    mov eax, ss
    mov [handler_ss], rax
    mov rax, cr2
    mov [caught_cr2], rax
    xor eax, eax
    xchg eax, [resume]
    test eax, eax
    jz .return
    mov rsp, [resume_rsp]
    jmp rax
.return:
    cmp ecx, 0x200000               ; an INT of ours?
    jae .by_iret
    lea eax, [rcx - 0x010000]       ; or one of the traps, 1 to 4?
    cmp eax, 0x040000
    jb .by_iret
    mov eax, ecx                    ; a fault that nobody expects
    xor edx, edx
    jmp wrong64
.by_iret:
    mov [rsp + 32], rbx             ; in place of the vector
    pop rdx
    pop rcx
    pop rbx
    pop rax
    pop rsp                         ; the frame, without error code
    iretq

.align 8
resume: .quad 0
resume_rsp: .quad 0
caught: .quad 0
caught_frame: .quad 0
caught_rip: .quad 0
caught_cs: .quad 0
caught_flags: .quad 0
caught_rsp: .quad 0
caught_ss: .quad 0
caught_cr2: .quad 0
caught_rax: .quad 0
handler_ss: .quad 0
.align 16
idt64:
.rept VECTORS
    .word (stubs + \+ * STUB) & 0xffff, CODE64, 0x8e00, (stubs + \+ * STUB) >> 16
    .quad 0
.endr
idt64_pointer:
    .word idt64_pointer - idt64 - 1
    .quad idt64
