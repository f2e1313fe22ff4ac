; The local APIC (Intel SDM vol. 3, chapter 10), and its timer, calibrated against the 8254.

.equ APIC_ID, 0x20
.equ APIC_VERSION, 0x30
.equ APIC_PRIORITY, 0x80
.equ APIC_EOI, 0xb0
.equ APIC_SPURIOUS, 0xf0
.equ APIC_ERRORS, 0x280
.equ APIC_LVT_TIMER, 0x320
.equ APIC_LVT_LINT0, 0x350
.equ APIC_LVT_LINT1, 0x360
.equ APIC_LVT_ERROR, 0x370
.equ APIC_INITIAL_COUNT, 0x380
.equ APIC_CURRENT_COUNT, 0x390
.equ APIC_DIVIDE, 0x3e0

.equ SOFTWARE_ENABLE, 0x100
.equ MASKED, 0x10000
.equ PERIODIC, 0x20000
.equ DELIVER_NMI, 0x400
.equ DIVIDE_BY_1, 0b1011

.equ TICK_COUNT, 11932              ; of the 8254's 1 193 182 a second: 10 ms

mask_pics:                          ; spoils EAX
    mov al, 0x11                    ; away from the exceptions first: 0x60-0x6f, should one of them come all the same
    out 0x20, al
    out 0xa0, al
    mov al, 0x60
    out 0x21, al
    mov al, 0x68
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    ret

start_local_apic:                   ; spoils EAX, EBX
    GATE SPURIOUS_VECTOR, on_spurious
    GATE ERROR_VECTOR, on_apic_error
    mov ebx, [local_apic]
    mov eax, [ebx + APIC_VERSION]
    and eax, 0xf0
    cmp eax, 0x10                   ; 0x10 to 0x15 are local APICs; where there is none, the bus reads 0 or all ones
    je .answers
    FAIL "no local APIC is where the MP table says"
.answers:
    mov dword ptr [ebx + APIC_SPURIOUS], SOFTWARE_ENABLE | SPURIOUS_VECTOR
    mov dword ptr [ebx + APIC_LVT_LINT0], MASKED    ; the 8259s' way
    mov dword ptr [ebx + APIC_LVT_LINT1], DELIVER_NMI
    mov dword ptr [ebx + APIC_LVT_ERROR], ERROR_VECTOR
    mov dword ptr [ebx + APIC_ERRORS], 0            ; twice: the first write latches, the second one clears
    mov dword ptr [ebx + APIC_ERRORS], 0
    mov dword ptr [ebx + APIC_EOI], 0               ; whatever is left from before
    mov dword ptr [ebx + APIC_PRIORITY], 0
    ret

start_apic_timer:                   ; ends with interrupts on; spoils EAX, EBX, ECX
    GATE TIMER_VECTOR, on_timer
    mov ebx, [local_apic]
    mov dword ptr [ebx + APIC_DIVIDE], DIVIDE_BY_1
    mov dword ptr [ebx + APIC_LVT_TIMER], MASKED
    in al, 0x61
    and al, 0xfc                    ; counter 2: gate closed, speaker off
    out 0x61, al
    mov al, 0xb0                    ; counter 2, low byte then high byte, mode 0 (its output rises at the end)
    out 0x43, al
    mov al, TICK_COUNT & 0xff
    out 0x42, al
    mov al, TICK_COUNT >> 8
    out 0x42, al
    in al, 0x61
    mov dword ptr [ebx + APIC_INITIAL_COUNT], 0xffffffff
    or al, 1                        ; gate open: both count
    out 0x61, al
.wait:
    mov ecx, 50                     ; reading a port takes a microsecond on a PC: nothing is lost by looking seldom
    loop $
    in al, 0x61
    test al, 0x20                   ; counter 2's output
    jz .wait
    mov eax, [ebx + APIC_CURRENT_COUNT]
    not eax                         ; counts of 10 ms
    mov dword ptr [ebx + APIC_LVT_TIMER], PERIODIC | TIMER_VECTOR
    mov [ebx + APIC_INITIAL_COUNT], eax
    SAY "filesystem: the local APIC's timer counts "
    call print_decimal
    SAY " in 10 ms\n"
    sti
.tick:                              ; it works if there are two ticks
    hlt
    cmp dword ptr [ticks], 2
    jb .tick
    ret
