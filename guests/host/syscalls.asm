; The system calls. Arguments in EBX, ECX, EDX; the result in EAX, -1 for an error. All other registers may be
; changed, the program's are in its frame.

SYS_EXIT        = 0
SYS_WRITE       = 1
SYS_READ_BLOCK  = 2
SYS_YIELD       = 3
SYS_ENTER_GUEST = 4
SYS_TICKS       = 5
SYS_SIGNAL      = 6                     ; 6 and 7: host/signals.asm
SYS_SIGRETURN   = 7
SYS_MAP         = 8                     ; 8 and 9: host/mapping.asm
SYS_UNMAP       = 9
SYSCALLS        = 10

SERIAL_STREAM   = 1
CONSOLE_STREAM  = 2

.align 4
syscall_table:
    .long sys_exit, sys_write, sys_read_block, sys_yield, sys_enter_guest, sys_ticks
    .long sys_signal, sys_sigreturn, sys_map, sys_unmap

; exit(status): does not return. The end of the last emulation program is everybody's: it is what the machine was
; started for.
sys_exit:
    mov eax, [current]
    mov dword ptr [eax + PROCESS_STATE], ENDED
    mov [eax + PROCESS_STATUS], ebx
    dec dword ptr [processes_left]
    cmp eax, worker_process
    je schedule                         ; which never comes back to an ENDED process
    dec dword ptr [guests_left]
    jnz schedule
    mov dword ptr [shutting_down], 1
    jmp schedule

; write(stream, buffer, length) -> length. In one piece: nobody else's output comes in between.
sys_write:
    mov ebp, ecx
    mov eax, ecx
    mov ecx, edx
    mov edx, USER_READ
    call check_user
    jc bad_call
    mov esi, ebp
    mov ebp, ecx
    cmp ebx, SERIAL_STREAM
    je .serial
    cmp ebx, CONSOLE_STREAM
    jne bad_call
    mov dx, CONSOLE
    rep outsb
    mov eax, ebp
    ret
.serial:
    call write_serial
    mov eax, ebp
    ret

bad_call:
    mov eax, -1
    ret

; read_block(lba, buffer) -> 0. 512 bytes from the disk.
sys_read_block:
    mov ebp, ecx
    mov eax, ecx
    mov ecx, 512
    mov edx, USER_WRITE
    call check_user
    jc bad_call
    mov edi, ebp
    jmp read_disk

; yield() -> 0. Gives away the rest of this tick, not only a turn: the emulation program calls it because its guest
; waits for time to pass, and asking the guest again at once would only find it still waiting.
sys_yield:
    mov eax, [current]
    mov dword ptr [eax + PROCESS_STATE], WAITING
    call schedule
    xor eax, eax
    ret

; ticks() -> timer interrupts since boot.
sys_ticks:
    mov eax, [ticks]
    ret

; enter_guest(run_block) -> why the guest was left. This is the whole driver. Behind the OUT somebody may take the
; processor away, put other tables under it, and give it back later with everything as it was; to us it is one slow
; port. IF is open, so that our interrupts are taken here, be it before or after; their handler may run others in the
; meantime. The jump ends the processor's straight run of instructions, at which point the exchange can take place.
DOOR            = 0x4856                ; "HV"
RUN_MAGIC       = 0x00                  ; the run block: a page of the emulation program, described in host/programs.asm
RUN_EXIT_REASON = 0x20

sys_enter_guest:
    test ebx, PAGE_SIZE - 1
    jnz bad_call
    mov eax, ebx
    mov ecx, PAGE_SIZE
    mov edx, USER_WRITE
    call check_user
    jc bad_call
    mov dword ptr [ebx + RUN_EXIT_REASON], 0        ; stays 0 if nobody is there
    sti
    mov edx, DOOR
    mov eax, ebx
door:
    out dx, eax
    jmp door_return
door_return:
    cli
    mov eax, [ebx + RUN_EXIT_REASON]
    ret
