; Processes, and who runs next.
;
; Three records in a ring, and one more for each guest after the first (host/guests.asm). The first is the idle process,
; which is what the boot became: it is never READY, and runs when nobody is.

PROCESS_STATE     = 0
PROCESS_ESP       = 4                   ; where its kernel stack stood when it was switched away from
PROCESS_STACK     = 8                   ; the top of that stack: where ring 3 enters
PROCESS_DIRECTORY = 12
PROCESS_STATUS    = 16                  ; after exit
PROCESS_NAME      = 20
PROCESS_HANDLER   = 24                  ; where its signals go, 0: it has asked for none (host/signals.asm)
PROCESS_SIGNALS   = 28                  ; the top of the stack that they come in on
PROCESS_OPEN      = 32                  ; 1: a signal may come now
PROCESS_MEMORY    = 36                  ; physical memory that it may map at any address (host/mapping.asm) ...
PROCESS_MEMORY_SIZE = 40                ; ... and how many bytes of it
PROCESS_POOL      = 44                  ; an emulation program's: the memory that it lends to its hypervisor ...
PROCESS_RUN_BLOCK = 48                  ; ... and its page of data
PROCESS_SIZE      = 52

ENDED   = 0
READY   = 1
WAITING = 2                             ; for the next tick

; Go on with the next READY process after the current one, in ring order; the current one's own turn comes last.
; Returns when the current one is chosen again.
schedule:
    mov esi, [current]
    mov edi, esi
.next:
    add edi, PROCESS_SIZE
    cmp edi, [processes_end]
    jb .look
    mov edi, processes
.look:
    cmp dword ptr [edi + PROCESS_STATE], READY
    je .found
    cmp edi, esi
    jne .next
    mov edi, idle_process               ; once around, and nobody
.found:
    cmp edi, esi
    je .stay

; The switch. A process in the kernel is its stack: every caller came through a gate, which put all its registers
; there, so ESP is the only one to exchange, and what FXSAVE saves. The kernel's memory, with the stacks in it, is the
; same in all directories.
    mov eax, [esi + PROCESS_STACK]
    fxsave [eax - PAGE_SIZE]
    mov [esi + PROCESS_ESP], esp
    mov [current], edi
    mov eax, [edi + PROCESS_STACK]
    fxrstor [eax - PAGE_SIZE]
    mov [kernel_tss + 4], eax
    mov eax, [edi + PROCESS_DIRECTORY]
    mov cr3, eax
    mov esp, [edi + PROCESS_ESP]
.stay:
    ret                                 ; into what the other one was doing when it called schedule

wake_all:
    mov edi, processes
.process:
    cmp dword ptr [edi + PROCESS_STATE], WAITING
    jne .next
    mov dword ptr [edi + PROCESS_STATE], READY
.next:
    add edi, PROCESS_SIZE
    cmp edi, [processes_end]
    jb .process
    ret

; HLT between ticks costs nothing; the tick's handler switches away from here when somebody can run. STI lets no
; interrupt in before the HLT has begun, so no tick slips through between the two.
idle:
    cli
    cmp dword ptr [processes_left], 0
    je finish
    call schedule
    sti
    hlt
    jmp idle

create_processes:
    mov edi, emulator_process
    xor ebx, ebx                        ; guest 0
    call create_emulator
    mov edi, worker_process
    mov eax, worker_main
    call create_process
    mov edi, more_processes
.guest:
    cmp edi, [processes_end]
    jae .done
    inc ebx
    call create_emulator
    add edi, PROCESS_SIZE
    jmp .guest
.done:
    ret

; Process EDI, of the emulation program for guest EBX: it finds this number in its EBX, and how much memory its guest
; has in its ECX. Keeps EBX and EDI.
create_emulator:
    mov eax, emulator_main
    call create_process
    mov esi, [edi + PROCESS_ESP]        ; there is where it returns to, and then its frame
    mov [esi + 4 + FRAME_EBX], ebx
    mov ecx, [edi + PROCESS_MEMORY_SIZE]
    mov [esi + 4 + FRAME_ECX], ecx
    ret

; Make process EDI ready to start at EAX in ring 3. Its kernel stack is given what it would hold if the program had
; just been interrupted before its first instruction: a frame, and below it the way back from schedule.
create_process:
    mov ebp, esp
    mov esp, [edi + PROCESS_STACK]
    fninit
    fxsave [esp - PAGE_SIZE]            ; MXCSR and the SSE registers are as the processor's start has left them
    push USER_DATA                      ; SS
    push STACK_TOP                      ; ESP: the first push is the first demand-zero page
    push 0x202                          ; EFLAGS: IF, and the bit that is always 1
    push USER_CODE
    push eax
    xor eax, eax
    mov ecx, 10
.zero:
    push eax                            ; error code, vector, and eight registers
    dec ecx
    jnz .zero
    mov eax, USER_DATA
    push eax                            ; DS ES FS GS
    push eax
    push eax
    push eax
    push trap_return
    mov [edi + PROCESS_ESP], esp
    mov dword ptr [edi + PROCESS_STATE], READY
    inc dword ptr [processes_left]
    mov esp, ebp
    ret

.align 4
current:        .long idle_process
processes_left: .long 0

;                       state  ESP  stack               directory              status  name           signals  memory
processes:
idle_process:     .long ENDED, 0,   idle_stack_top,     kernel_page_directory, 0,      0,             0, 0, 0, 0, 0
                  .long 0, 0
emulator_process: .long ENDED, 0,   emulator_stack_top, emulator_directory,    0,      emulator_name, 0, 0, 0
                  .long GUEST_PHYSICAL, GUEST_SIZE, POOL_PHYSICAL, run_block
worker_process:   .long ENDED, 0,   worker_stack_top,   worker_directory,      0,      worker_name,   0, 0, 0, 0, 0
                  .long 0, 0
more_processes:   .space (MOST_GUESTS - 1) * PROCESS_SIZE
processes_end:    .long more_processes  ; behind the last one there is

emulator_name: .asciz "emulator"
worker_name:   .asciz "worker"
