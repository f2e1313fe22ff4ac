; The two programs. Each has a page of code, read-only to it, and a page of data; stack and heap come on demand.

.macro SYSCALL number
    mov eax, \number
    int 0x80
.endm

; ------------------------------------------------------------------------------------------- the emulation program
; To the host it is a program like any other. It tells the hypervisor behind the door what memory there is, and then
; does for the guest, by ordinary system calls, what only the host can do. Where the hypervisor is not to have the
; processor at all (Figure 1), the guest runs inside of this program: see guest_moves_in.
;
; The run block is how the two talk, all of it 32-bit words:
RUN_VERSION    = 0x04
RUN_GUEST      = 0x08                   ; which guest, from 0 on
RUN_MEMORY     = 0x0c                   ; its RAM, at our virtual address, and its size in bytes
RUN_MEMORY_SIZE = 0x10
RUN_POOL       = 0x14                   ; pages for the hypervisor itself
RUN_POOL_SIZE  = 0x18
RUN_ARG0       = 0x24                   ; after RUN_EXIT_REASON: what the reason is about
RUN_ARG1       = 0x28
RUN_RESULT     = 0x30                   ; our answer: 0, or -1
RUN_SIGNALLED  = 0x34                   ; 1 when the guest was left by a signal, whose frame is in RUN_SIGNAL
RUN_SIGNAL     = 0xb0                   ; its registers, as host/signals.asm has them; below are 100 bytes of stack
RUN_SIGNALS    = RUN_SIGNAL + SIGNAL_SIZE
RUN_DATA       = 0x200                  ; bytes in either direction
RUN_DATA_SIZE  = 512
RUN_MAPPINGS   = 0x400                  ; up to 256 times: address, offset and WRITABLE or -1 for none, size in bytes
MAPPING_SIZE   = 12

EXIT_REASONS   = 10

.align PAGE_SIZE
emulator_main:
    mov dword ptr [run_block + RUN_MAGIC], 0x42525648       ; "HVRB"
    mov dword ptr [run_block + RUN_VERSION], 1
    mov [run_block + RUN_GUEST], ebx    ; the kernel has put them there: our guest's number, and its memory in bytes
    mov dword ptr [run_block + RUN_MEMORY], GUEST_MEMORY
    mov [run_block + RUN_MEMORY_SIZE], ecx
    mov dword ptr [run_block + RUN_POOL], POOL_MEMORY
    mov dword ptr [run_block + RUN_POOL_SIZE], POOL_SIZE
emulator_loop:
    mov ebx, run_block
    SYSCALL SYS_ENTER_GUEST
    cmp eax, EXIT_REASONS
    jae guest_failed                    ; -1, if the kernel dislikes our run block, is above it, too
    jmp dword ptr [exit_reasons + eax*4]

exit_reasons:
    .long nobody_there                  ; 0
    .long emulator_loop                 ; 1 INTERRUPT: the host has had it already, when the door closed
    .long guest_idle                    ; 2 IDLE: the guest waits in HLT
    .long guest_halted                  ; 3 HALTED, with status arg0
    .long guest_write                   ; 4 WRITE arg1 bytes of data
    .long guest_read_block              ; 5 READ_BLOCK number arg0 into data
    .long guest_failed                  ; 6 FAILED
    .long guest_moves_in                ; 7 MOVE_IN: the guest is to run inside of this program
    .long guest_inside                  ; 8 INSIDE: make arg0 mappings; then, if arg1 is 0, go to the guest
    .long guest_served                  ; 9 EVENT: vector arg0, error code arg1; the guest's own handler may have it

guest_idle:
    SYSCALL SYS_YIELD
    jmp emulator_loop

guest_write:
    mov ebx, SERIAL_STREAM
    mov ecx, run_block + RUN_DATA
    mov edx, [run_block + RUN_ARG1]
    cmp edx, RUN_DATA_SIZE
    ja guest_refused
    SYSCALL SYS_WRITE
    cmp eax, edx
    jne guest_refused
guest_served:
    mov dword ptr [run_block + RUN_RESULT], 0
    jmp emulator_loop
guest_refused:
    mov dword ptr [run_block + RUN_RESULT], -1
    jmp emulator_loop

guest_read_block:
    mov ebx, [run_block + RUN_ARG0]
    mov ecx, run_block + RUN_DATA
    SYSCALL SYS_READ_BLOCK
    test eax, eax
    jz guest_served
    jmp guest_refused

; The guest gets all addresses that we can give: our stack and heap go, the windows, and the information page. What we
; keep is the kernel's to give and too near to it for a guest: these two pages, of code and of data.
guest_moves_in:
    mov ebx, guest_signal
    mov ecx, run_block + RUN_SIGNALS
    SYSCALL SYS_SIGNAL
    mov ebx, 0
    mov edx, HOST_MEMORY
    SYSCALL SYS_UNMAP
    mov ebx, HOST_END
    mov edx, (0 - HOST_END) & 0xffffffff                    ; to the end of all addresses
    SYSCALL SYS_UNMAP
    jmp guest_served

guest_inside:
    mov edi, [run_block + RUN_ARG0]
    mov esi, run_block + RUN_MAPPINGS
.mapping:
    test edi, edi
    jz .mapped
    mov ebx, [esi]
    mov ecx, [esi + 4]
    mov edx, [esi + 8]
    cmp ecx, -1
    je .unmap
    SYSCALL SYS_MAP
    jmp .next
.unmap:
    SYSCALL SYS_UNMAP
.next:
    mov [run_block + RUN_ARG0], edi     ; how many there were left with this one, if it is refused
    test eax, eax
    jnz guest_refused
    add esi, MAPPING_SIZE
    dec edi
    jmp .mapping
.mapped:
    cmp dword ptr [run_block + RUN_ARG1], 0
    jne guest_served
    mov ebx, run_block + RUN_SIGNAL
    SYSCALL SYS_SIGRETURN
    jmp guest_failed                    ; it has come back

; Whatever the guest did, it comes to the kernel first, and then here.
guest_signal:
    mov dword ptr [run_block + RUN_SIGNALLED], 1
    jmp emulator_loop

guest_halted:
    mov ebx, [run_block + RUN_ARG0]
    SYSCALL SYS_EXIT

guest_failed:
    mov ebx, 1
    SYSCALL SYS_EXIT

nobody_there:
    mov ebx, CONSOLE_STREAM
    mov ecx, nobody
    mov edx, nobody_end - nobody
    SYSCALL SYS_WRITE
    mov ebx, 2
    SYSCALL SYS_EXIT

nobody: .ascii "host: nobody behind the hypervisor's door\n"
nobody_end:

.align PAGE_SIZE
run_block: .space PAGE_SIZE

; ------------------------------------------------------------------------------------------------------ the worker
; The other tenant of the machine, here to show that the host goes on living: it finds primes for as long as the
; emulation program lasts. It is also the host's witness. Its heap begins with 64 KiB in which every word holds its own
; address; if one does not at the end, somebody has reached into the host's memory, and the worker says so and fails.
; To write that many words takes longer than a tick, so the worker is interrupted in ring 3 at least once.
;
; After the pattern comes the ledger: every prime found so far, its square beside it, in lines of 32 bytes, so that
; a new page is asked for every 128 primes. A number is prime if no ledger prime up to its root divides it.
PATTERN       = HEAP
PATTERN_WORDS = 0x4000
LEDGER        = PATTERN + PATTERN_WORDS * 4
LEDGER_LINE   = 32
BATCH         = 8                       ; primes between two yields
REPORT        = 100                     ; primes between two reports

.align PAGE_SIZE
worker_main:
    mov edi, PATTERN
    mov ecx, PATTERN_WORDS
.fill:
    mov [edi], edi
    add edi, 4
    dec ecx
    jnz .fill
    mov esi, 2                          ; the candidate, in ESI throughout

.candidate:
    cmp dword ptr [INFO_PAGE], 0        ; shutting_down
    jne .end
    mov edi, LEDGER
.divide:
    cmp edi, [ledger_end]
    jae .prime
    cmp [edi + 4], esi                  ; beyond the root?
    ja .prime
    mov eax, esi
    xor edx, edx
    div dword ptr [edi]
    test edx, edx
    jz .next
    add edi, LEDGER_LINE
    jmp .divide

.prime:
    inc dword ptr [worker_count]
    cmp esi, 0xffff                     ; the square of a larger one fits no register, and no candidate needs it:
    ja .noted                           ; the ledger ends with 65521, after 6542 lines or 52 pages
    mov edi, [ledger_end]
    mov [edi], esi
    mov eax, esi
    mul esi
    mov [edi + 4], eax
    add dword ptr [ledger_end], LEDGER_LINE
.noted:
    dec dword ptr [until_report]
    jnz .no_report
    mov dword ptr [until_report], REPORT
    call report
.no_report:
    dec dword ptr [until_yield]
    jnz .next
    mov dword ptr [until_yield], BATCH
    SYSCALL SYS_YIELD
.next:
    inc esi
    jmp .candidate

.end:
    mov edi, PATTERN
    mov ecx, PATTERN_WORDS
.check:
    cmp [edi], edi
    jne .changed
    add edi, 4
    dec ecx
    jnz .check
    xor ebx, ebx
    SYSCALL SYS_EXIT
.changed:
    mov ebx, CONSOLE_STREAM
    mov ecx, changed
    mov edx, changed_end - changed
    SYSCALL SYS_WRITE
    mov ebx, 3
    SYSCALL SYS_EXIT

; "worker: N primes": the number is written from its last digit to the left, into the ten places left free for it,
; then the word goes before it.
report:
    mov edi, report_number_end
    mov eax, [worker_count]
    mov ebx, 10
.digit:
    xor edx, edx
    div ebx
    add dl, '0'
    dec edi
    mov [edi], dl
    test eax, eax
    jnz .digit
    mov ecx, 8
.prefix:
    dec edi
    mov al, [report_prefix + ecx - 1]
    mov [edi], al
    dec ecx
    jnz .prefix
    mov ebx, CONSOLE_STREAM
    mov ecx, edi
    mov edx, report_end
    sub edx, edi
    SYSCALL SYS_WRITE
    ret

report_prefix: .ascii "worker: "
changed:       .ascii "worker: my memory has changed\n"
changed_end:

.align PAGE_SIZE
worker_data:
worker_count: .long 0                   ; primes found so far
ledger_end:   .long LEDGER
until_yield:  .long BATCH
until_report: .long REPORT
.space 18                               ; room for "worker: " and ten digits
report_number_end:
    .ascii " primes\n"
report_end:
.align PAGE_SIZE
host_end:
