; Exceptions: one entry a vector, one frame for all of them and for SYSCALL, and three things that may then be done:
; map a page on demand, skip an instruction that was expected to fault, or give up. All of it runs in the upper half.

.macro entry name, vector           ; the processor pushes no error code: push a 0 in its place
\name:
    push 0
    push \vector
    jmp exception
.endm

.macro entry_with_code name, vector
\name:
    push \vector
    jmp exception
.endm

.equ SYSCALL_VECTOR, 0x100          ; no vector: what SYSCALL's entry puts in its place

.equ FRAME_RAX, 112                 ; the highest of fifteen registers
.equ FRAME_RDI, 72
.equ FRAME_VECTOR, 120
.equ FRAME_ERROR, 128
.equ FRAME_RIP, 136
.equ FRAME_CS, 144
.equ FRAME_FLAGS, 152
.equ FRAME_RSP, 160                 ; always there, whether the privilege changed or not
.equ FRAME_SS, 168
.equ FRAME_SIZE, 176

.code64
.align 16
    entry divide_error_entry, 0
    entry debug_entry, 1
    entry nmi_entry, 2
    entry breakpoint_entry, 3
    entry overflow_entry, 4
    entry bound_entry, 5
    entry invalid_opcode_entry, 6
    entry no_coprocessor_entry, 7
    entry_with_code double_fault_entry, 8
    entry coprocessor_overrun_entry, 9
    entry_with_code invalid_tss_entry, 10
    entry_with_code segment_not_present_entry, 11
    entry_with_code stack_fault_entry, 12
    entry_with_code general_protection_entry, 13
    entry_with_code page_fault_entry, 14
    entry reserved_entry, 15
    entry coprocessor_error_entry, 16
    entry_with_code alignment_check_entry, 17
    entry machine_check_entry, 18
    entry simd_error_entry, 19
    entry later_entry, 20           ; 20-31: processors of today have some, this kernel knows none of them
    entry call_entry, 0x80

syscall_entry:                      ; rip in rcx, flags in r11, the stack still the program's, IF off by FMASK
    swapgs
    mov gs:[16], rsp
    mov rsp, gs:[0]
    push USER_DATA                  ; the frame that an interrupt would have pushed
    push qword ptr gs:[16]
    swapgs
    push r11
    push USER_CODE
    push rcx
    push 0
    push SYSCALL_VECTOR

exception:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rbp, rsp                    ; rbp: the frame
    mov edi, dword ptr [rbp + FRAME_VECTOR]
    call check_frame
    cmp edi, 0x80
    je system_call
    cmp edi, SYSCALL_VECTOR
    je system_call
    cmp edi, 14
    je page_fault

skip_expected:                      ; is it a fault that somebody announced?
    lea rsi, [expected]
.next:
    mov rax, [rsi]
    test rax, rax
    jz unexpected
    cmp rax, [rbp + FRAME_RIP]
    jne .other
    cmp edi, dword ptr [rsi + 8]
    jne .other
    mov eax, dword ptr [rbp + FRAME_ERROR]
    cmp eax, dword ptr [rsi + 12]
    jne .other
    mov rax, [rsi + 16]
    mov [rbp + FRAME_RIP], rax      ; go on behind it
    mov rsi, [rsi + 24]
    test rsi, rsi
    jz return_from_exception
    call print
    jmp return_from_exception
.other:
    add rsi, 32
    jmp .next

return_from_exception:
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    cmp dword ptr [rsp], SYSCALL_VECTOR
    je .by_sysret
    add rsp, 16                     ; the vector and the error code
    iretq
.by_sysret:
    add rsp, 16
    pop rcx                         ; rip
    add rsp, 8
    pop r11                         ; flags
    pop rsp
    sysretq

; Did the processor do it right? From a program: its selectors and IF=1 in the frame, the frame at the very top of the
; stack that the TSS names, and SS null for an interrupt or the one after CS for SYSCALL. From the kernel: the kernel's
; cs and ss. Through an interrupt gate IF is now 0, through the trap gate 1. And all of it in the upper half.
check_frame:
    mov ax, ss
    test byte ptr [rbp + FRAME_CS], 3
    jz .kernel
    cmp edi, SYSCALL_VECTOR
    jne .null_ss
    sub ax, KERNEL_DATA
.null_ss:
    test ax, ax
    jnz .bad
    cmp word ptr [rbp + FRAME_CS], USER_CODE
    jne .bad
    cmp word ptr [rbp + FRAME_SS], USER_DATA
    jne .bad
    mov eax, dword ptr [rbp + FRAME_FLAGS]
    and eax, FLAGS_CHECKED
    cmp eax, 2 + FLAG_INTERRUPT
    jne .bad
    lea rax, [rbp + FRAME_SIZE]
    cmp rax, [tss + TSS_RSP0]
    jne .bad
    jmp .gate
.kernel:
    cmp word ptr [rbp + FRAME_CS], KERNEL_CODE
    jne .bad
    cmp word ptr [rbp + FRAME_SS], KERNEL_DATA
    jne .bad
.gate:
    call read_flags
    mov edx, 2
    cmp edi, 0x80
    jne .compare
    mov edx, 2 + FLAG_INTERRUPT
.compare:
    cmp eax, edx
    jne .bad
    lea rax, [check_frame]
    mov rdx, HIGH + check_frame
    cmp rax, rdx
    jne .bad
    ret
.bad:
    say text_bad_frame
    jmp unexpected

page_fault:
    inc dword ptr [faults]
    mov rbx, cr2
    mov [last_fault], rbx
    mov rax, rbx
    sub rax, DEMAND_BASE
    cmp rax, DEMAND_SIZE
    jae skip_expected
    mov ecx, dword ptr [rbp + FRAME_ERROR]
    mov edx, ecx
    and edx, 3
    cmp edx, 2                      ; a write (2) to a page that is not there (not 1), by the kernel or by a program (4)
    jne skip_expected
    mov edx, dword ptr [next_frame]
    add dword ptr [next_frame], 0x1000
    mov r8d, ecx
    mov edi, edx                    ; memory is given out empty
    xor eax, eax
    mov ecx, 512
    rep stosq
    mov eax, r8d                    ; present and writable (3); for programs (4) if it was one that asked; never executed
    and eax, 4
    lea eax, [rdx + rax + 3]
    mov rcx, NX
    or rax, rcx
    mov rdx, rbx
    sub rdx, DEMAND_BASE
    shr rdx, 12
    mov [demand_table + rdx * 8], rax
    say text_demand                 ; no invlpg: the processor remembers no page that was not present
    mov rax, rbx
    call print_hexadecimal
    say text_error
    mov eax, r8d
    call print_decimal
    say text_demand_done
    jmp return_from_exception       ; the instruction runs once more, and now it works

unexpected:                         ; rbp: the frame
    say text_unexpected
    mov rax, [rbp + FRAME_VECTOR]
    call print_decimal
    say text_unexpected_error
    mov rax, [rbp + FRAME_ERROR]
    call print_hexadecimal
    say text_unexpected_rip
    mov rax, [rbp + FRAME_RIP]
    call print_hexadecimal
    say text_unexpected_cr2
    mov rax, cr2
    call print_hexadecimal
    say new_line
    mov al, 1
    out 0xf4, al
    jmp stop

.align 8
entries:                            ; for the gates of vectors 0-47
    .quad HIGH + divide_error_entry, HIGH + debug_entry, HIGH + nmi_entry, HIGH + breakpoint_entry
    .quad HIGH + overflow_entry, HIGH + bound_entry, HIGH + invalid_opcode_entry, HIGH + no_coprocessor_entry
    .quad HIGH + double_fault_entry, HIGH + coprocessor_overrun_entry, HIGH + invalid_tss_entry
    .quad HIGH + segment_not_present_entry, HIGH + stack_fault_entry, HIGH + general_protection_entry
    .quad HIGH + page_fault_entry, HIGH + reserved_entry, HIGH + coprocessor_error_entry
    .quad HIGH + alignment_check_entry, HIGH + machine_check_entry, HIGH + simd_error_entry
    .fill 12, 8, HIGH + later_entry
    .quad HIGH + timer_entry
    .fill 15, 8, HIGH + stray_interrupt

.macro announce place, vector, error, next, text    ; RIP, vector, error code, where to go on, what to say (0: nothing)
    .quad \place
    .long \vector, \error
    .quad \next, \text
.endm

expected:                           ; the faults that are announced
    announce program_div, 0, 0, program_div_next, text_div
    announce program_cli, 13, 0, program_cli_next, text_cli_fault
    announce program_in, 13, 0, program_in_next, text_in_fault
    announce program_swapgs, 13, 0, program_swapgs_next, text_swapgs_fault
    announce program_nowhere, 13, 0, program_nowhere_next, text_nowhere_fault
    announce program_ud2, 6, 0, program_ud2_next, text_ud2_fault
    announce program_int3_next, 3, 0, program_int3_next, text_int3      ; a trap: RIP is behind it already
    announce program_peek, 14, 5, program_peek_next, text_peek_fault    ; present (1), read, by a program (4)
    announce user_stack, 14, 0x15, program_nx_next, text_nx_fault       ; present, by a program, a fetch (16)
    announce kernel_write, 14, 3, kernel_write_next, text_write_fault   ; present (1), write (2), by the kernel
    announce LARGE_PAGE, 14, 0x11, kernel_fetch_next, text_fetch_fault  ; present, a fetch, by the kernel
    announce touch_it, 14, 0, touch_faulted, 0                          ; not present, read, by the kernel
    .quad 0

text_bad_frame: .asciz "guest64: the processor pushed a wrong frame\n"
text_demand: .asciz "guest64: page fault at "
text_error: .asciz ", error "
text_demand_done: .asciz ": mapped a page there\n"
text_unexpected: .asciz "guest64: unexpected exception "
text_unexpected_error: .asciz " error "
text_unexpected_rip: .asciz " rip "
text_unexpected_cr2: .asciz " cr2 "
text_div: .asciz "guest64: divide error in the program, handled\n"
text_cli_fault: .asciz "guest64: the program tried cli: general protection fault, skipped\n"
text_in_fault: .asciz "guest64: the program tried in al, 0x60: general protection fault, skipped\n"
text_swapgs_fault: .asciz "guest64: the program tried swapgs: general protection fault, skipped\n"
text_nowhere_fault: .asciz "guest64: the program read between the halves: general protection fault, skipped\n"
text_ud2_fault: .asciz "guest64: the program tried ud2: invalid opcode, skipped\n"
text_int3: .asciz "guest64: breakpoint in the program\n"
text_peek_fault: .asciz "guest64: the program tried to read the upper half: page fault, error 5, skipped\n"
text_nx_fault: .asciz "guest64: the program tried to execute its stack: page fault, error 21, skipped\n"
text_write_fault: .asciz "guest64: my own write to a read-only page: page fault, error 3, skipped\n"
text_fetch_fault: .asciz "guest64: my own jump to a 2 MiB page of data: page fault, error 17, skipped\n"
