; Signals: a program may ask for its exceptions, instead of being ended by them.
;
; It names a handler and a stack, once. From its first sigreturn on, whatever makes it enter the kernel from outside of
; the handler - an exception, INT 0x80, a tick of the timer - is delivered: its registers are put at the top of that
; stack, and it goes on in the handler, where no further signal comes. There an exception is its end, and INT 0x80 is a
; system call. With sigreturn it goes on wherever the registers that it hands over say.

SIGNAL_CR2  = FRAME_SIZE                ; a signal is a frame (host/traps.asm), and what CR2 was
SIGNAL_SIZE = FRAME_SIZE + 4

; Of EFLAGS, what a program may have: the arithmetic flags, TF, DF, NT, AC and ID.
USER_FLAGS  = 0x00244dd5

; EBP = the frame of the current process, EAX; it came from ring 3. Does not return.
deliver_signal:
    mov ebx, eax
    mov dword ptr [ebx + PROCESS_OPEN], 0
    mov eax, [ebx + PROCESS_SIGNALS]
    sub eax, SIGNAL_SIZE
    push eax
    mov ecx, SIGNAL_SIZE
    mov edx, USER_WRITE
    call check_user
    pop edi
    jc kill                             ; nowhere to put it
    mov edx, edi
    mov esi, ebp
    mov ecx, FRAME_SIZE / 4
    rep movsd
    mov eax, cr2
    stosd
    mov [ebp + FRAME_ESP], edx          ; the handler's stack goes on below the frame
    mov eax, [ebx + PROCESS_HANDLER]
    mov [ebp + FRAME_EIP], eax
    mov dword ptr [ebp + FRAME_EFLAGS], 0x202
    mov eax, USER_DATA
    mov edi, ebp
    mov ecx, 4
    rep stosd
    jmp trap_return

; signal(handler, top of its stack) -> 0.
sys_signal:
    mov ebp, ecx
    mov eax, ebx
    mov ecx, 1
    mov edx, USER_READ
    call check_user
    jc bad_call
    mov eax, ebp
    sub eax, SIGNAL_SIZE
    jc bad_call
    mov ecx, SIGNAL_SIZE
    mov edx, USER_WRITE
    call check_user
    jc bad_call
    mov eax, [current]
    mov [eax + PROCESS_HANDLER], ebx
    mov [eax + PROCESS_SIGNALS], ebp
    xor eax, eax
    ret

; sigreturn(frame): does not return, but to where the frame says. Segments, and flags that are not a program's to
; choose, are not taken from it.
sys_sigreturn:
    mov eax, ebx
    mov ecx, SIGNAL_SIZE
    mov edx, USER_READ
    call check_user
    jc bad_call
    mov eax, [current]
    cmp dword ptr [eax + PROCESS_HANDLER], 0
    je bad_call
    mov dword ptr [eax + PROCESS_OPEN], 1
    add esp, 4                          ; not back to where system calls return to
    lea esi, [ebx + 16]                 ; behind the segments: the registers of PUSHAD
    lea edi, [esp + 16]
    mov ecx, 8
    rep movsd
    mov eax, [ebx + FRAME_EIP]
    mov [esp + FRAME_EIP], eax
    mov eax, [ebx + FRAME_ESP]
    mov [esp + FRAME_ESP], eax
    mov eax, [ebx + FRAME_EFLAGS]
    and eax, USER_FLAGS
    or eax, 0x202
    mov [esp + FRAME_EFLAGS], eax
    jmp trap_return
