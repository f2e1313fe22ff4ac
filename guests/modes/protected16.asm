; 16-bit protected mode, as the 80286 had it: its gates with frames of words, its TSS, rings 0 and 3

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ CODE16, 0x18
.equ DATA16, 0x20
.equ USER_CODE, 0x2b
.equ USER_DATA, 0x33
.equ TASK, 0x38
.equ OTHER_TASK, 0x40
.equ CALL_GATE, 0x48
.equ ABSENT, 0x50
.equ BASE16, part16                 ; all 16-bit segments are 64 KiB from here
.equ FLAG_IF, 0x200
.equ FLAG_NT, 0x4000

.equ TSS_SP0, 2                     ; offsets in a 16-bit TSS
.equ TSS_SS0, 4
.equ TSS_IP, 0x0e
.equ TSS_FLAGS, 0x10
.equ TSS16_SIZE, 0x2c

.macro TRY16 next                   ; where to go on after the next exception, in ring 0
    mov word ptr [caught - part16], 0xbad
    mov word ptr [resume - part16], \next - part16
    mov [resume_sp - part16], sp
.endm

.macro CAUGHT16 vector, text
    mov ax, [caught - part16]
    CHECK16 \vector, \text
.endm

.macro SEEN16 variable, wanted, text
    mov ax, [\variable - part16]
    CHECK16 \wanted, \text
.endm

.macro RING3 code, next             ; run `code` in ring 3
    TRY16 \next
    mov bx, \code - part16
    jmp to_user
.endm


start:
    cli
    cld
    mov al, 0xff                    ; no interrupts from devices
    out 0x21, al
    out 0xa1, al
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    jmp CODE16:protected16 - part16

.align 16
part16:
.include "common/check16.asm"

protected16:
    mov ax, DATA16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x12340000 + stack_top - part16
    mov ax, TASK
    ltr ax
    mov al, [gdt + TASK + 5 - part16]
    xor ah, ah
    CHECK16 0x83, "LTR: the 16-bit TSS is busy"

    ; 1. A 16-bit stack moves SP and leaves the upper half of ESP alone.
    push ax
    mov eax, esp
    shr eax, 16
    CHECK16 0x1234, "PUSH leaves the upper half of ESP alone"
    mov ax, sp
    CHECK16 stack_top - part16 - 2, "SP moves by 2"
    pop ax

    ; 2. Frames of words.
    push FLAG_IF + 2
    popf
    int 0x20
.after_int:
    cli
    CAUGHT16 0x20, "INT through a 286 interrupt gate"
    SEEN16 caught_frame, stack_top - part16 - 6, "the frame has 3 words"
    SEEN16 caught_ip, .after_int - part16, "IP"
    SEEN16 caught_cs, CODE16, "CS"
    SEEN16 caught_if, FLAG_IF, "FLAGS with IF"
    SEEN16 handler_if, 0, "IF is clear in the handler"
    push FLAG_IF + 2
    popf
    int 0x21
    cli
    SEEN16 handler_if, FLAG_IF, "not by a trap gate"
    TRY16 .absent
    mov ax, ABSENT
    mov es, ax
.absent:
    CAUGHT16 11, "MOV ES, not present: #NP"
    SEEN16 caught_error, ABSENT, "its error code is a word"
    SEEN16 caught_frame, stack_top - part16 - 6, "below 3 words"
    xor ebx, ebx
    int 0x22
.after_int22:
    mov eax, ebx
    sub eax, .after_int22 - part16
    CHECK16 0, "INT through a 386 gate to 32-bit code, and IRETD back"

    ; 3. Ring 3, and back by SS0:SP0 of the TSS.
    RING3 user_int, .user_int
.user_int:
    CAUGHT16 0x23, "ring 3: INT"
    SEEN16 caught_frame, ring0_top - part16 - 10, "5 words on the stack of the TSS"
    SEEN16 caught_cs, USER_CODE, "CS"
    SEEN16 caught_ss, USER_DATA, "SS"
    SEEN16 caught_sp, user_top - part16, "SP"
    RING3 user_cli, .user_cli
.user_cli:
    CAUGHT16 13, "ring 3: CLI is #GP"
    RING3 user_int20, .user_int20
.user_int20:
    CAUGHT16 13, "ring 3: INT through a gate of DPL 0 is #GP"
    SEEN16 caught_error, 0x20 * 8 + 2, "its error code is vector * 8 + 2"
    RING3 user_gate, .user_gate
.user_gate:
    CAUGHT16 0x23, "ring 3: back from a 286 call gate"
    SEEN16 caught_ax, 0x1200, "two words of parameters were copied"
    SEEN16 caught_sp, user_top - part16, "RETF 4 dropped them"
    SEEN16 gate_sp, ring0_top - part16 - 12, "SS, SP, parameters, CS, IP on the stack of the TSS"

    ; 4. A task with a 16-bit TSS.
    mov bx, 0x5678
    call OTHER_TASK:0
.after_call:
    SEEN16 seen_ax, 0xaaaa, "CALL to a 16-bit TSS: it has its registers"
    SEEN16 seen_link, TASK, "its back link"
    SEEN16 seen_flags, FLAG_NT, "NT"
    mov ax, bx
    CHECK16 0x5678, "IRET: this task has its own again"
    SEEN16 tss + TSS_IP, .after_call - part16, "its TSS holds the IP behind the CALL"
    jmp dword CODE32:back

to_user:                            ; to ring 3 at BX
    push USER_DATA
    push user_top - part16
    push 2
    push USER_CODE
    push bx
    iret

gate_routine:
    mov bp, sp
    mov ax, DATA16
    mov ds, ax
    mov [gate_sp - part16], bp
    mov ax, [bp + 6]
    sub ax, [bp + 4]
    retf 4

user_int:
    int 0x23
user_cli:
    cli
user_int20:
    int 0x20
user_gate:
    push 0x1234
    push 0x34
    call CALL_GATE + 3:0
    int 0x23

other_task:
    mov [seen_ax - part16], ax
    pushf
    pop ax
    and ax, FLAG_NT
    mov [seen_flags - part16], ax
    mov ax, [other_tss - part16]
    mov [seen_link - part16], ax
    iret

stubs:                              ; 5 bytes each
.rept 0x24
    push \+
    jmp near catch
.endr

catch:
    pusha
    mov bx, DATA16                  ; ring 3 has no DS
    mov ds, bx
    mov es, bx
    mov bp, sp
    mov [caught_ax - part16], ax
    movzx ebx, word ptr [bp + 16]
    mov [caught - part16], bx
    lea si, [bp + 18]               ; where the frame is
    xor cx, cx
    cmp bx, 32
    jae .no_code
    mov edx, 0x27d00                ; 8, 10-14 and 17 have an error code
    bt edx, ebx
    jnc .no_code
    mov cx, [si]
    add si, 2
.no_code:
    mov [caught_error - part16], cx
    mov [caught_frame - part16], si
    mov di, caught_ip - part16      ; IP, CS, FLAGS; SP and SS are there only if the ring has changed
    mov cx, 5
    rep movsw
    and word ptr [caught_if - part16], FLAG_IF
    pushf
    pop ax
    and ax, FLAG_IF
    mov [handler_if - part16], ax
    xor ax, ax
    xchg ax, [resume - part16]
    test ax, ax
    jz .return
    mov bx, DATA16
    mov ss, bx
    mov sp, [resume_sp - part16]
    jmp ax
.return:
    mov ax, bx
    mov dx, [caught_error - part16]
    cmp ax, 32
    jb wrong16                      ; a fault that nobody expects
    popa
    add sp, 2
    iret

.align 2
resume: .word 0
resume_sp: .word 0
caught: .word 0
caught_error: .word 0
caught_frame: .word 0
caught_ax: .word 0
caught_ip: .word 0                  ; the next five in the order of the frame
caught_cs: .word 0
caught_if: .word 0
caught_sp: .word 0
caught_ss: .word 0
handler_if: .word 0
gate_sp: .word 0
seen_ax: .word 0
seen_link: .word 0
seen_flags: .word 0

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 32-bit code, flat
    .quad 0x00cf93000000ffff        ; 0x10 32-bit data, flat
    .word 0xffff, part16 & 0xffff, 0x9b00 + (part16 >> 16), 0       ; 0x18 16-bit code
    .word 0xffff, part16 & 0xffff, 0x9300 + (part16 >> 16), 0       ; 0x20 16-bit data
    .word 0xffff, part16 & 0xffff, 0xfb00 + (part16 >> 16), 0       ; 0x28 16-bit code of ring 3
    .word 0xffff, part16 & 0xffff, 0xf300 + (part16 >> 16), 0       ; 0x30 16-bit data of ring 3
    .word TSS16_SIZE - 1, tss & 0xffff, 0x8100 + (tss >> 16), 0     ; 0x38 a 16-bit TSS
    .word TSS16_SIZE - 1, other_tss & 0xffff, 0x8100 + (other_tss >> 16), 0     ; 0x40
    .word gate_routine - part16, CODE16, 0xe402, 0                  ; 0x48 a 286 call gate, 2 words, DPL 3
    .word 0xffff, 0, 0x1300, 0                                      ; 0x50 data, not present
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.align 8
idt:                                ; 286 gates: the last word is 0
.rept 0x21
    .word stubs - part16 + \+ * 5, CODE16, 0x8600, 0
.endr
    .word stubs - part16 + 0x21 * 5, CODE16, 0x8700, 0              ; a trap gate
    .word routine32 & 0xffff, CODE32, 0x8e00, routine32 >> 16       ; a 386 interrupt gate
    .word stubs - part16 + 0x23 * 5, CODE16, 0xe600, 0              ; DPL 3
idt_pointer:
    .word idt_pointer - idt - 1
    .long idt
.align 4
tss:
    .word 0, ring0_top - part16, DATA16
    .space TSS16_SIZE - 6
other_tss:
    .space TSS_IP
    .word other_task - part16, 2, 0xaaaa, 0, 0, 0, other_top - part16, 0, 0, 0
    .word DATA16, CODE16, DATA16, DATA16, 0

.align 4
    .space 128
user_top:
    .space 256
other_top:
    .space 256
ring0_top:
    .space 512
stack_top:

; ------------------------------------------------------------------------------------------------- the 32-bit part
.code32
routine32:                          ; on a 16-bit stack: SP counts, and the frame has doublewords
    movzx ebp, sp
    mov ebx, [ebp]
    iret

back:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, stack_top
    movzx eax, word ptr [check_number16]
    mov [check_number], eax
    mov eax, cs
    CHECK CODE32, "back in 32-bit code"
    jmp finish32
image_end:
