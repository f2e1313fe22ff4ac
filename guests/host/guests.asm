; How many guests there are, and where their memory is.
;
; The multiboot command line may say so: "guests=2 memory=64" are two guests with 64 MiB each. Without it there is one
; guest, with 16 MiB at physical 0, and nothing is allotted here. What is new begins behind the host's own memory: a
; guest's memory, unless it is the first guest's and ends below this kernel, then 16 MiB for its hypervisor, in whole
; tables of 4 MiB each.

MOST_GUESTS       = 16
MOST_MEMORY       = 2048                ; MiB; the window at GUEST_MEMORY ends at 4 GiB
MULTIBOOT_MAGIC   = 0x2badb002          ; in EAX; EBX is where the information is
INFO_HAS_MEMORY   = 1                   ; flags, in its first word
INFO_HAS_COMMAND_LINE = 4
INFO_UPPER        = 8                   ; KiB of memory from 1 MiB on
INFO_COMMAND_LINE = 16

read_command_line:
    cmp eax, MULTIBOOT_MAGIC
    jne .done
    test dword ptr [ebx], INFO_HAS_MEMORY
    jz .no_memory
    mov eax, [ebx + INFO_UPPER]
    shr eax, 10
    inc eax
    shl eax, 20
    mov [memory_end], eax
.no_memory:
    test dword ptr [ebx], INFO_HAS_COMMAND_LINE
    jz .done
    mov esi, [ebx + INFO_COMMAND_LINE]
    cmp byte ptr [esi], 0
    je .done
.word:
    mov edi, guests_option
    mov ebx, guests_left
    call take_option
    mov edi, memory_option
    mov ebx, guest_memory
    call take_option
.skip:                                  ; to the next word
    lodsb
    test al, al
    jz .allot
    cmp al, ' '
    jne .skip
    jmp .word
.allot:
    mov eax, [guests_left]
    dec eax
    cmp eax, MOST_GUESTS
    jae bad_command_line
    mov ecx, [guest_memory]
    lea eax, [ecx - 1]
    cmp eax, MOST_MEMORY
    jae bad_command_line
    shl ecx, 20
    mov [emulator_process + PROCESS_MEMORY_SIZE], ecx
    cmp ecx, GUEST_SIZE
    jbe .done                           ; the first guest's memory and pool may stay
    cmp ecx, HOST_MEMORY
    jbe .pool                           ; its memory may
    call allot
    mov [emulator_process + PROCESS_MEMORY], eax
.pool:
    mov ecx, POOL_SIZE
    call allot
    mov [emulator_process + PROCESS_POOL], eax
.done:
    ret

; If the word at ESI begins with the text at EDI: the number behind it goes to EBX. ESI stays unless it does.
take_option:
    push esi
.compare:
    mov al, [edi]
    test al, al
    jz .number
    cmp al, [esi]
    jne .other
    inc esi
    inc edi
    jmp .compare
.number:
    xor eax, eax
    xor ecx, ecx
.digit:
    mov cl, [esi]
    sub cl, '0'
    cmp cl, 9
    ja .end
    inc esi
    lea eax, [eax + eax*4]
    lea eax, [ecx + eax*2]
    jmp .digit
.end:
    mov [ebx], eax
    add esp, 4
    ret
.other:
    pop esi
    ret

; ECX bytes of physical memory, and up to whole tables, at EAX. Changes ECX.
allot:
    mov eax, [next_memory]
    add ecx, TABLE_SPAN - 1
    and ecx, ~(TABLE_SPAN - 1)
    add ecx, eax
    jc no_memory                        ; beyond 4 GiB
    cmp ecx, [memory_end]
    ja no_memory
    mov [next_memory], ecx
    ret

; A process of the emulation program for each guest after the first: its stack, its directory, its page of data, and
; the two pieces of memory.
add_guests:
    mov ebp, [processes_end]
    mov ebx, [guests_left]
.guest:
    dec ebx
    jz .done
    call new_frame
    add eax, PAGE_SIZE
    mov [ebp + PROCESS_STACK], eax
    call new_frame
    mov [ebp + PROCESS_DIRECTORY], eax
    call new_frame
    mov [ebp + PROCESS_RUN_BLOCK], eax
    mov dword ptr [ebp + PROCESS_NAME], emulator_name
    mov ecx, [emulator_process + PROCESS_MEMORY_SIZE]
    mov [ebp + PROCESS_MEMORY_SIZE], ecx
    call allot
    mov [ebp + PROCESS_MEMORY], eax
    mov ecx, POOL_SIZE
    call allot
    mov [ebp + PROCESS_POOL], eax
    push ebx
    call build_emulator_directory
    pop ebx
    add ebp, PROCESS_SIZE
    jmp .guest
.done:
    mov [processes_end], ebp
    ret

no_memory:
    SAY too_little
    xor eax, eax                        ; status 1
    jmp fail

bad_command_line:
    SAY too_many
    xor eax, eax
    jmp fail

.align 4
guests_left:   .long 1                  ; guests that have not ended
guest_memory:  .long GUEST_SIZE >> 20   ; MiB, for each
memory_end:    .long HOST_END
next_memory:   .long HOST_END

guests_option: .asciz "guests="
memory_option: .asciz "memory="
too_little:    .asciz "host: the machine has too little memory for these guests\n"
too_many:      .asciz "host: from 1 to 16 guests, with 1 to 2048 MiB each\n"
