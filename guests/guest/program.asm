; A program in ring 3, and what the kernel does for it. Its pages are its own: code (read-only) and a stack.

.equ CALL_PRINT, 1                  ; int 0x80 with the number in eax: print the string at ebx
.equ CALL_DONE, 2                   ; the program has ended
.equ CALL_WRONG, 3                  ; print the string at ebx and count a failed check

run_program:
    pushad
    mov dword ptr [kernel_stack], esp
    mov eax, USER_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    push USER_DATA                  ; an iret to a lower privilege takes ss:esp, flags and cs:eip from the stack
    push user_stack_top
    push 2 + FLAG_INTERRUPT
    push USER_CODE
    push user_program
    iret

system_call:                        ; ebp: the frame; interrupts stay on, as the trap gate has left them
    mov esi, dword ptr [ebp + FRAME_EBX]
    mov eax, dword ptr [ebp + FRAME_EAX]
    cmp eax, CALL_DONE
    je .done
    cmp esi, user_program           ; a pointer from a program: it must point to what is the program's
    jb .refuse
    cmp esi, user_program_end
    jae .refuse
    mov dword ptr [ebp + FRAME_EAX], 0
    call print
    cmp eax, CALL_WRONG
    jne return_from_exception
    inc dword ptr [failures]
    jmp return_from_exception
.refuse:
    mov dword ptr [ebp + FRAME_EAX], -1
    jmp return_from_exception
.done:
    cli
    mov esp, dword ptr [kernel_stack]   ; what is left on the interrupt stack is of no interest
    popad
    ret

touch_kernel:                       ; the kernel's own faults: on demand, and by writing to what it has made read-only
    mov eax, 0x600df00d
    mov dword ptr [DEMAND_BASE + 0x2000], eax
    cmp dword ptr [DEMAND_BASE + 0x2000], eax
    jne kernel_memory_wrong
    mov ebx, user_program
    mov eax, dword ptr [ebx]
    not eax
kernel_write:
    mov dword ptr [ebx], eax        ; must not arrive
kernel_write_next:
    cmp dword ptr [ebx], eax
    je kernel_memory_wrong
    ret
kernel_memory_wrong:
    say text_wrong_memory
    inc dword ptr [failures]
    ret

.align 4
kernel_stack: .long 0
text_wrong_memory: .asciz "guest: WRONG: memory does not hold what I wrote\n"

.macro ask number, text             ; a system call with a string
    mov ebx, \text
    mov eax, \number
    int 0x80
.endm

.align 4096
user_program:
    ask CALL_PRINT, text_hello_program
    mov ax, cs
    cmp ax, USER_CODE
    jne program_wrong
    push 2                          ; popfd in a program leaves IF as it is, without a fault
    popfd
    pushfd
    pop eax
    test eax, FLAG_INTERRUPT
    jz program_wrong
    mov ebx, kernel_secret          ; a pointer that is not ours to give
    mov eax, CALL_PRINT
    int 0x80
    cmp eax, -1
    jne program_wrong

    mov eax, 42
    mov ebx, 0x11111111
    mov esi, 0x22222222
    mov edi, 0x33333333
    mov ebp, 0x44444444
    xor ecx, ecx
    xor edx, edx
program_div:
    div ecx
program_div_next:
    cmp eax, 42                     ; the instruction had no effect, and nobody touched our registers
    jne program_wrong
    cmp ebx, 0x11111111
    jne program_wrong
    cmp esi, 0x22222222
    jne program_wrong
    cmp edi, 0x33333333
    jne program_wrong
    cmp ebp, 0x44444444
    jne program_wrong
    test ecx, ecx
    jnz program_wrong
    cmp esp, user_stack_top
    jne program_wrong
    ask CALL_PRINT, text_after_div

    mov dword ptr [DEMAND_BASE + 0x1234], 0xcafef00d    ; no memory is there yet
    cmp dword ptr [DEMAND_BASE + 0x1234], 0xcafef00d
    jne program_wrong
    cmp dword ptr [DEMAND_BASE + 0x1238], 0
    jne program_wrong
    ask CALL_PRINT, text_after_store

program_cli:
    cli
program_cli_next:
program_hlt:
    hlt
program_hlt_next:
program_in:
    in al, 0x60
program_in_next:
program_int14:
    int 14                          ; the gate is the kernel's: not an error code of a page fault, but one of the IDT
program_int14_next:
program_ud2:
    ud2
program_ud2_next:
    int3                            ; this gate is for everybody
program_int3_next:
program_peek:
    mov eax, dword ptr [kernel_secret]
program_peek_next:
    cmp eax, 0x5ec2e700
    je program_wrong
    ask CALL_PRINT, text_program_done
    ask CALL_DONE, 0

program_wrong:
    ask CALL_WRONG, text_program_wrong
    ask CALL_DONE, 0

text_hello_program: .asciz "program: hello from ring 3\n"
text_after_div: .asciz "program: I go on after my division by zero\n"
text_after_store: .asciz "program: the page that I touched holds what I stored\n"
text_program_done: .asciz "program: done\n"
text_program_wrong: .asciz "program: WRONG: something is not as it should be\n"
user_program_end:

.align 4096
user_stack: .space 4096
user_stack_top:

kernel_secret: .long 0x5ec2e700     ; on the first page after the program's: the kernel's again
