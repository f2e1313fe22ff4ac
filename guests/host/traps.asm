; Everything that comes through the interrupt descriptor table: exceptions, the timer, system calls.
;
; All gates are interrupt gates, so the kernel starts with IF = 0; and it leaves it so but for three places: the idle
; loop, the door, and between two tables of a long unmap. An interrupt therefore finds either a program, or a kernel with nothing half done, and may always
; switch to another process.
;
; Whatever comes in, the stack of the process ends up with the same frame, from low addresses to high:
FRAME_SEGMENTS = 0                      ; GS FS ES DS
FRAME_EBX      = 16 + 16                ; PUSHAD: EDI ESI EBP ESP EBX EDX ECX EAX
FRAME_ECX      = 16 + 24
FRAME_EAX      = 16 + 28
FRAME_VECTOR   = 48
FRAME_ERROR    = 52                     ; the processor's error code, or 0 in its place
FRAME_EIP      = 56
FRAME_CS       = 60
FRAME_EFLAGS   = 64
FRAME_ESP      = 68                     ; ESP and SS only if the ring changed
FRAME_SS       = 72
FRAME_SIZE     = 76

.macro SAVE_ALL
    pushad
    push ds
    push es
    push fs
    push gs
    mov ax, KERNEL_DATA                 ; a program may have put anything into DS, even 0
    mov ds, ax
    mov es, ax
    cld                                 ; ... and into DF
.endm

.macro EXCEPTION name, vector
\name:
    push 0
    push \vector
    jmp exception
.endm

.macro EXCEPTION_WITH_CODE name, vector ; the processor has pushed an error code
\name:
    push \vector
    jmp exception
.endm

    EXCEPTION           divide_error_entry, 0
    EXCEPTION           debug_entry, 1
    EXCEPTION           nmi_entry, 2
    EXCEPTION           breakpoint_entry, 3
    EXCEPTION           overflow_entry, 4
    EXCEPTION           bound_entry, 5
    EXCEPTION           invalid_opcode_entry, 6
    EXCEPTION           device_not_available_entry, 7
    EXCEPTION_WITH_CODE double_fault_entry, 8
    EXCEPTION           coprocessor_overrun_entry, 9
    EXCEPTION_WITH_CODE invalid_tss_entry, 10
    EXCEPTION_WITH_CODE segment_not_present_entry, 11
    EXCEPTION_WITH_CODE stack_fault_entry, 12
    EXCEPTION_WITH_CODE general_protection_entry, 13
    EXCEPTION_WITH_CODE page_fault_entry, 14
    EXCEPTION           reserved_entry, 15
    EXCEPTION           floating_point_entry, 16
    EXCEPTION_WITH_CODE alignment_check_entry, 17
    EXCEPTION           machine_check_entry, 18
    EXCEPTION           simd_entry, 19
    EXCEPTION           virtualization_entry, 20
    EXCEPTION_WITH_CODE control_protection_entry, 21
    EXCEPTION           injection_entry, 28
    EXCEPTION_WITH_CODE vmm_communication_entry, 29
    EXCEPTION_WITH_CODE security_entry, 30

; Deliver or die: to a program that has asked for its exceptions they are delivered as signals, all of them; to others
; a page that was promised is delivered, and every other exception is the end of the program, or, in the kernel, of the
; machine.
exception:
    SAVE_ALL
    mov ebp, esp
    mov ecx, [ebp + FRAME_VECTOR]
    test ecx, ecx
    jnz .not_divide
    inc dword ptr [divide_errors]
.not_divide:
    test byte ptr [ebp + FRAME_CS], 3
    jz panic
    mov eax, [current]
    cmp dword ptr [eax + PROCESS_OPEN], 0
    jne deliver_signal
    cmp ecx, 14
    jne kill
    test byte ptr [ebp + FRAME_ERROR], PRESENT
    jnz kill                            ; the page is there: it is the right that is missing
    mov eax, cr2
    call demand_zero
    jc kill

; The way back to where a frame came from. A new process starts here, too.
trap_return:
    pop gs
    pop fs
    pop es
    pop ds
    popad
    add esp, 8                          ; vector and error code
    iret

kill:
    SAY host_prefix
    mov eax, [current]
    mov esi, [eax + PROCESS_NAME]
    call print_string
    SAY killed
    call print_trap
    mov ebx, [ebp + FRAME_VECTOR]
    add ebx, 128                        ; as shells have it: 128 + the reason
    jmp sys_exit

panic:
    SAY panicked
    call print_trap
    mov al, 0x7f                        ; status 255, where a debug exit port is there to hear it
    jmp fail

; The frame at EBP in words. CR2 is printed for every vector, but only a page fault sets it.
print_trap:
    SAY trap_vector
    mov eax, [ebp + FRAME_VECTOR]
    call print_decimal
    SAY trap_error
    mov eax, [ebp + FRAME_ERROR]
    call print_hex
    SAY trap_eip
    mov eax, [ebp + FRAME_EIP]
    call print_hex
    SAY trap_cr2
    mov eax, cr2
    call print_hex
    SAY host_newline
    ret

; The tick, about 4000 times a second: everybody who waited for it may run, and somebody else is given his turn.
timer_entry:
    push 0
    push 0x20
    SAVE_ALL
    inc dword ptr [ticks]
    mov al, 0x20
    out 0x20, al                        ; end of interrupt, before another process goes on and IF opens
    call wake_all
    call schedule
    mov ebp, esp
    test byte ptr [ebp + FRAME_CS], 3
    jz trap_return
    mov eax, [current]                  ; a program that takes signals is told of the tick that has interrupted it
    cmp dword ptr [eax + PROCESS_OPEN], 0
    jne deliver_signal
    jmp trap_return

; Only IRQ 0 is unmasked. What else arrives is spurious: the controller found nothing when the processor asked what
; there was, and named its lowest line. It expects no end of interrupt, but when it was the second controller the first
; one does.
spurious_second_entry:
    push eax
    mov al, 0x20
    out 0x20, al
    pop eax
spurious_entry:
    iret

; Number in EAX, arguments in EBX, ECX, EDX; the result goes where the program's EAX is kept. While a program waits for
; signals, INT 0x80 is one of them: the code that it runs then is not its own, and does not mean us.
syscall_entry:
    push 0
    push 0x80
    SAVE_ALL
    mov ebp, esp
    mov eax, [current]
    cmp dword ptr [eax + PROCESS_OPEN], 0
    jne deliver_signal
    mov eax, [esp + FRAME_EAX]
    cmp eax, SYSCALLS
    jae .unknown
    call dword ptr [syscall_table + eax*4]
    mov [esp + FRAME_EAX], eax
    jmp trap_return
.unknown:
    mov dword ptr [esp + FRAME_EAX], -1
    jmp trap_return

; Gates 0-0x2f from the table, and 0x80. The others stay absent: a program that tries them gets #GP.
build_idt:
    xor ecx, ecx
.gate:
    mov eax, [trap_table + ecx*4]
    mov edx, 0x8e00                     ; present, 32-bit interrupt gate, not for INT n in ring 3
    call set_gate
    inc ecx
    cmp ecx, 0x30
    jb .gate
    mov dh, 0xee                        ; the same with DPL 3
    mov ecx, 3
    mov eax, breakpoint_entry
    call set_gate
    mov ecx, 4
    mov eax, overflow_entry
    call set_gate
    mov ecx, 0x80
    mov eax, syscall_entry

; Gate ECX leads to EAX with attributes EDX. The address is stored in two halves, a relic of the 286.
set_gate:
    lea edi, [kernel_idt + ecx*8]
    mov [edi], ax
    mov word ptr [edi + 2], KERNEL_CODE
    mov [edi + 4], dx
    shr eax, 16
    mov [edi + 6], ax
    ret

.align 4
trap_table:
    .long divide_error_entry, debug_entry, nmi_entry, breakpoint_entry
    .long overflow_entry, bound_entry, invalid_opcode_entry, device_not_available_entry
    .long double_fault_entry, coprocessor_overrun_entry, invalid_tss_entry, segment_not_present_entry
    .long stack_fault_entry, general_protection_entry, page_fault_entry, reserved_entry
    .long floating_point_entry, alignment_check_entry, machine_check_entry, simd_entry
    .long virtualization_entry, control_protection_entry
    .fill 6, 4, reserved_entry
    .long injection_entry, vmm_communication_entry, security_entry, reserved_entry
    .long timer_entry                   ; 0x20: IRQ 0
    .fill 7, 4, spurious_entry          ; 0x21-0x27
    .fill 8, 4, spurious_second_entry   ; 0x28-0x2f

kernel_idt_pointer:
    .word kernel_idt_end - kernel_idt - 1
    .long kernel_idt

.align 16
kernel_idt: .space 256 * 8
kernel_idt_end:

host_prefix: .asciz "host: "
killed:      .asciz " killed:"
panicked:    .asciz "host: panic:"
trap_vector: .asciz " vector="
trap_error:  .asciz " error=0x"
trap_eip:    .asciz " eip=0x"
trap_cr2:    .asciz " cr2=0x"
