; A program in ring 3, and what the kernel does for it. Its pages are its own: code (read-only) and a stack.

.equ CALL_PRINT, 1                  ; SYSCALL or INT 0x80 with the number in rax: print the string at rdi
.equ CALL_DONE, 2                   ; the program has ended
.equ CALL_WRONG, 3                  ; print the string at rdi and count a failed check

.code64
run_program:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [kernel_stack], rsp
    push USER_DATA
    push user_stack_top
    push 2 + FLAG_INTERRUPT
    push USER_CODE
    push user_program
    iretq

system_call:                        ; rbp: the frame
    mov rsi, [rbp + FRAME_RDI]
    mov rax, [rbp + FRAME_RAX]
    cmp rax, CALL_DONE
    je .done
    mov rdx, user_program           ; a pointer from a program: it must point to what is the program's
    cmp rsi, rdx
    jb .refuse
    mov rdx, user_program_end
    cmp rsi, rdx
    jae .refuse
    mov qword ptr [rbp + FRAME_RAX], 0
    call print
    cmp rax, CALL_WRONG
    jne return_from_exception
    inc dword ptr [failures]
    jmp return_from_exception
.refuse:
    mov qword ptr [rbp + FRAME_RAX], -1
    jmp return_from_exception
.done:
    cli
    mov rsp, [kernel_stack]         ; what is left on the interrupt stack is of no interest
    mov eax, KERNEL_DATA
    mov ss, eax                     ; the way in from ring 3 has left it null
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

touch_kernel:                       ; the kernel's own faults: on demand, by a write to its code, by a jump to its data
    mov rax, 0x600df00d600df00d
    mov [DEMAND_BASE + 0x2000], rax
    cmp [DEMAND_BASE + 0x2000], rax
    jne kernel_memory_wrong
    mov rbx, user_program
    mov rax, [rbx]
    not rax
kernel_write:
    mov [rbx], rax                  ; must not arrive
kernel_write_next:
    cmp [rbx], rax
    je kernel_memory_wrong
    mov rax, LARGE_PAGE
    mov byte ptr [rax], 0xc3        ; a RET, if it were code
    jmp rax
kernel_fetch_next:
    mov byte ptr [rax], 0
    ret
kernel_memory_wrong:
    say text_wrong_memory
    inc dword ptr [failures]
    ret

text_wrong_memory: .asciz "guest64: WRONG: memory does not hold what I wrote\n"

.macro ask number, text             ; a system call with a string; spoils rax, rcx, rdi, r11
    mov rdi, \text
    mov eax, \number
    syscall
.endm

.align 4096
user_program:
    ask CALL_PRINT, text_hello_program
    mov rdi, text_by_int
    mov eax, CALL_PRINT
    int 0x80
    mov ax, cs
    cmp ax, USER_CODE
    jne program_wrong
    mov eax, gs:[0]                 ; gs is ours again after each way out of the kernel
    cmp eax, 0x05e20da7
    jne program_wrong
    push 2                          ; popfq in a program leaves IF as it is, without a fault
    popfq
    pushfq
    pop rax
    test eax, FLAG_INTERRUPT
    jz program_wrong
    mov rdi, HIGH + kernel_secret   ; a pointer that is not ours to give
    mov eax, CALL_PRINT
    syscall
    cmp rax, -1
    jne program_wrong

    mov eax, 42
    mov rbx, 0x1111111122222222
    mov r8, 0x8888888888888888
    mov r11, 0xbbbbbbbbbbbbbbbb
    mov r15, 0xffffffff00000001
    movq xmm0, r15
    movq xmm15, r8
    xor ecx, ecx
    xor edx, edx
program_div:
    div rcx
program_div_next:
    cmp rax, 42                     ; the instruction had no effect, and nobody touched our registers
    jne program_wrong
    mov rax, 0x1111111122222222
    cmp rbx, rax
    jne program_wrong
    mov rax, 0x8888888888888888
    cmp r8, rax
    jne program_wrong
    movq rdx, xmm15
    cmp rdx, rax
    jne program_wrong
    mov rax, 0xbbbbbbbbbbbbbbbb
    cmp r11, rax
    jne program_wrong
    mov rax, 0xffffffff00000001
    cmp r15, rax
    jne program_wrong
    movq rdx, xmm0
    cmp rdx, rax
    jne program_wrong
    mov rax, user_stack_top
    cmp rsp, rax
    jne program_wrong
    ask CALL_PRINT, text_after_div

    mov rax, 0xcafef00d12345678
    mov [DEMAND_BASE + 0x1238], rax     ; no memory is there yet
    cmp [DEMAND_BASE + 0x1238], rax
    jne program_wrong
    cmp qword ptr [DEMAND_BASE + 0x1240], 0
    jne program_wrong
    ask CALL_PRINT, text_after_store

program_cli:
    cli
program_cli_next:
program_in:
    in al, 0x60
program_in_next:
program_swapgs:
    swapgs
program_swapgs_next:
    mov rbx, 0x0000800000000000     ; bits 63 to 47 are not all alike
program_nowhere:
    mov al, byte ptr [rbx]
program_nowhere_next:
program_ud2:
    ud2
program_ud2_next:
    int3                            ; this gate is for everybody
program_int3_next:
    mov rbx, HIGH + kernel_secret
program_peek:
    mov eax, dword ptr [rbx]
program_peek_next:
    cmp eax, 0x5ec2e700
    je program_wrong
    mov rbx, user_stack
    jmp rbx
program_nx_next:
    ask CALL_PRINT, text_program_done
    ask CALL_DONE, 0

program_wrong:
    ask CALL_WRONG, text_program_wrong
    ask CALL_DONE, 0

.align 8
user_data: .long 0x05e20da7
text_hello_program: .asciz "program: hello from ring 3, by syscall\n"
text_by_int: .asciz "program: and by int 0x80\n"
text_after_div: .asciz "program: I go on after my division by zero\n"
text_after_store: .asciz "program: the page that I touched holds what I stored\n"
text_program_done: .asciz "program: done\n"
text_program_wrong: .asciz "program: WRONG: something is not as it should be\n"
user_program_end:
.align 4096
