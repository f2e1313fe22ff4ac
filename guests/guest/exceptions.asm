; Exceptions: one entry a vector, one frame for all of them, and three things that may then be done about one:
; map a page on demand, skip an instruction that was expected to fault, or give up.

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

.equ FRAME_VECTOR, 40               ; above es, ds and the eight registers of pushad
.equ FRAME_EAX, 36
.equ FRAME_EBX, 24
.equ FRAME_ERROR, 44
.equ FRAME_EIP, 48
.equ FRAME_CS, 52
.equ FRAME_FLAGS, 56
.equ FRAME_SS, 64                   ; esp and ss are there only when the privilege changed
.equ FRAME_SIZE, 68

.equ DEMAND_BASE, 0x40000000        ; 4 MiB of addresses that get their memory when they are touched
.equ DEMAND_SIZE, 0x00400000

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
    entry syscall_entry, 0x80

exception:
    pushad
    push ds
    push es
    mov eax, KERNEL_DATA            ; the program may have had anything in ds and es
    mov ds, ax
    mov es, ax
    cld
    mov ebp, esp                    ; ebp: the frame
    mov edi, dword ptr [ebp + FRAME_VECTOR]
    call check_frame
    cmp edi, 0x80
    je system_call
    cmp edi, 14
    je page_fault

skip_expected:                      ; is it a fault that somebody announced?
    mov esi, expected
.next:
    mov eax, dword ptr [esi]
    test eax, eax
    jz unexpected
    cmp eax, dword ptr [ebp + FRAME_EIP]
    jne .other
    cmp edi, dword ptr [esi + 4]
    jne .other
    mov eax, dword ptr [ebp + FRAME_ERROR]
    cmp eax, dword ptr [esi + 8]
    jne .other
    mov eax, dword ptr [esi + 12]
    mov dword ptr [ebp + FRAME_EIP], eax    ; go on behind it
    mov esi, dword ptr [esi + 16]
    test esi, esi
    jz return_from_exception
    call print
    jmp return_from_exception
.other:
    add esi, 20
    jmp .next

return_from_exception:
    pop es
    pop ds
    popad
    add esp, 8                      ; the vector and the error code
    iret

; Did the processor do it right? From a program: its selectors and IF=1 in the frame, and the frame at the very top of
; the stack that the TSS names. From the kernel: the kernel's cs. Through an interrupt gate IF is now 0, through the
; trap gate 1.
check_frame:
    mov ax, ss
    cmp ax, KERNEL_DATA
    jne .bad
    test byte ptr [ebp + FRAME_CS], 3
    jz .kernel
    cmp word ptr [ebp + FRAME_CS], USER_CODE
    jne .bad
    cmp word ptr [ebp + FRAME_SS], USER_DATA
    jne .bad
    mov eax, dword ptr [ebp + FRAME_FLAGS]
    and eax, FLAGS_CHECKED
    cmp eax, 2 + FLAG_INTERRUPT
    jne .bad
    lea eax, [ebp + FRAME_SIZE]
    cmp eax, dword ptr [tss + TSS_ESP0]
    jne .bad
    jmp .gate
.kernel:
    cmp word ptr [ebp + FRAME_CS], KERNEL_CODE
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
    ret
.bad:
    say text_bad_frame
    jmp unexpected

page_fault:
    inc dword ptr [faults]
    mov ebx, cr2
    mov dword ptr [last_fault], ebx
    mov eax, ebx
    sub eax, DEMAND_BASE
    cmp eax, DEMAND_SIZE
    jae skip_expected
    mov ecx, dword ptr [ebp + FRAME_ERROR]
    mov edx, ecx
    and edx, 3
    cmp edx, 2                      ; a write (2) to a page that is not there (not 1), by the kernel or by a program (4)
    jne skip_expected
    mov edx, dword ptr [next_frame]
    add dword ptr [next_frame], 0x1000
    push ecx
    mov edi, edx                    ; memory is given out empty
    xor eax, eax
    mov ecx, 1024
    rep stosd
    pop ecx
    mov eax, ecx                    ; present and writable (3); for programs (4) if it was one that asked
    and eax, 4
    lea eax, [edx + eax + 3]
    mov edx, ebx
    sub edx, DEMAND_BASE
    shr edx, 12
    mov dword ptr [demand_table + edx * 4], eax
    say text_demand                 ; no invlpg: the processor remembers no page that was not present
    mov eax, ebx
    call print_hexadecimal
    say text_error
    mov eax, ecx
    call print_decimal
    say text_demand_done
    jmp return_from_exception       ; the instruction runs once more, and now it works

unexpected:                         ; ebp: the frame
    say text_unexpected
    mov eax, dword ptr [ebp + FRAME_VECTOR]
    call print_decimal
    say text_unexpected_error
    mov eax, dword ptr [ebp + FRAME_ERROR]
    call print_hexadecimal
    say text_unexpected_eip
    mov eax, dword ptr [ebp + FRAME_EIP]
    call print_hexadecimal
    say text_unexpected_cr2
    mov eax, cr2
    call print_hexadecimal
    say new_line
    mov al, 1
    out 0xf4, al
    jmp stop

.align 4
entries:                            ; for the gates of vectors 0-47
    .long divide_error_entry, debug_entry, nmi_entry, breakpoint_entry, overflow_entry, bound_entry
    .long invalid_opcode_entry, no_coprocessor_entry, double_fault_entry, coprocessor_overrun_entry
    .long invalid_tss_entry, segment_not_present_entry, stack_fault_entry, general_protection_entry
    .long page_fault_entry, reserved_entry, coprocessor_error_entry, alignment_check_entry
    .long machine_check_entry, simd_error_entry
    .fill 12, 4, later_entry
    .long timer_entry
    .fill 15, 4, stray_interrupt

; The faults that are announced: EIP, vector, error code, where to go on, what to say (0: nothing).
expected:
    .long program_div, 0, 0, program_div_next, text_div
    .long program_cli, 13, 0, program_cli_next, text_cli_fault
    .long program_hlt, 13, 0, program_hlt_next, text_hlt_fault
    .long program_in, 13, 0, program_in_next, text_in_fault
    .long program_int14, 13, 14 * 8 + 2, program_int14_next, text_int14_fault   ; the gate of vector 14, in the IDT (2)
    .long program_ud2, 6, 0, program_ud2_next, text_ud2_fault
    .long program_int3_next, 3, 0, program_int3_next, text_int3     ; a trap: EIP is behind it already
    .long program_peek, 14, 5, program_peek_next, text_peek_fault   ; present (1), read, by a program (4)
    .long kernel_write, 14, 3, kernel_write_next, text_write_fault  ; present (1), write (2), by the kernel
    .long touch_it, 14, 0, touch_faulted, 0                         ; not present, read, by the kernel
    .long 0

faults: .long 0                     ; page faults so far, of every kind
last_fault: .long 0                 ; the address of the last one
next_frame: .long 0x00400000        ; memory to give out, from 4 MiB on

text_bad_frame: .asciz "guest: the processor pushed a wrong frame\n"
text_demand: .asciz "guest: page fault at "
text_error: .asciz ", error "
text_demand_done: .asciz ": mapped a page there\n"
text_unexpected: .asciz "guest: unexpected exception "
text_unexpected_error: .asciz " error "
text_unexpected_eip: .asciz " eip "
text_unexpected_cr2: .asciz " cr2 "
text_div: .asciz "guest: divide error in the program, handled\n"
text_cli_fault: .asciz "guest: the program tried cli: general protection fault, skipped\n"
text_hlt_fault: .asciz "guest: the program tried hlt: general protection fault, skipped\n"
text_in_fault: .asciz "guest: the program tried in al, 0x60: general protection fault, skipped\n"
text_int14_fault: .asciz "guest: the program tried int 14: general protection fault, error 0x72, skipped\n"
text_ud2_fault: .asciz "guest: the program tried ud2: invalid opcode, skipped\n"
text_int3: .asciz "guest: breakpoint in the program\n"
text_peek_fault: .asciz "guest: the program tried to read kernel memory: page fault, error 5, skipped\n"
text_write_fault: .asciz "guest: my own write to a read-only page: page fault, error 3, skipped\n"
