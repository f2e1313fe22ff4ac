; mixed.asm's counterpart of 64 bits: a guest kernel that runs at ring 0 under the page table of a 64-bit host, with an
; IDT of which some gates are its own
;
; It divides by zero (its own routine), raises interrupt 0x30 (the host's routine, by the mixtures of the tests), touches
; the host's page on demand (the host's page fault routine), and then waits, awake, for three ticks of the host's clock:
; nothing but the host's own timer routine can make them. At last it calls for the hypervisor by interrupt 0x31.
; HOST_TICKS is the address of a variable of the host's, HOST_DEMAND that of its page.

.origin 0x40101000
.entry start

HOST_CODE = 0x08

.code64
start:
    mov eax, dword ptr [HOST_TICKS]
    mov dword ptr [first_ticks], eax
    xor ecx, ecx
    xor edx, edx
    mov eax, 1
divide:
    div ecx
divided:
    int 0x30
probed:
    mov rbx, HOST_DEMAND
    mov eax, dword ptr [rbx]
    sti
spin:
    inc dword ptr [spins]
    mov eax, dword ptr [HOST_TICKS]
    sub eax, dword ptr [first_ticks]
    cmp eax, 3
    jb spin
    cli
    mov dword ptr [ticks_seen], eax
call_hypervisor:
    int 0x31
called:
    jmp call_hypervisor

divide_entry:
    inc dword ptr [divides]
    add qword ptr [rsp], 2
    iretq

probe_entry:
    inc dword ptr [probes]
    iretq

tick_entry:                             ; for a mixture in which the host's clock is taken away from the host
    inc dword ptr [ticks_taken]
    push rax
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq

.align 16
idt:                                    ; the gates of vectors 0-0x30 that are ours
    .word divide_entry & 0xffff, HOST_CODE, 0x8e00, divide_entry >> 16, 0, 0, 0, 0
    .space 31 * 16
    .word tick_entry & 0xffff, HOST_CODE, 0x8e00, tick_entry >> 16, 0, 0, 0, 0
    .space 15 * 16
    .word probe_entry & 0xffff, HOST_CODE, 0x8e00, probe_entry >> 16, 0, 0, 0, 0
idt_end:

.align 4096                             ; what is written keeps off the page that is executed
divides:      .long 0
probes:       .long 0
spins:        .long 0
first_ticks:  .long 0
ticks_seen:   .long 0
ticks_taken:  .long 0
.align 4096
    .space 4096
stack_top:
