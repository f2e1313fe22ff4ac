; debugging, what QEMU 7 leaves out (so it isn't in debug.asm): DR7.GD, two breakpoints at once, INT1

.origin 0x100000
.entry start

.include "../guest/multiboot.asm"   ; must come first
.include "common/check32.asm"
.include "common/catch32.asm"
.include "common/tss32.asm"

.equ CODE32, 0x08
.equ DATA32, 0x10
.equ USER_CODE, 0x1b
.equ USER_DATA, 0x23
.equ TASK, 0x28

start:
    cli
    cld
    mov esp, stack_top
    lgdt [gdt_pointer]
    jmp CODE32:.segments
.segments:
    mov eax, DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax
    ; 1. GD guards the debug registers themselves: a fault, and GD is clear in the handler.
    xor eax, eax
    mov dr6, eax
    mov eax, 0x2400
    mov dr7, eax
    TRY .guarded
.read:
    mov eax, dr0
.guarded:
    CAUGHT 0x010000, "GD: MOV from DR0 is #DB"
    mov eax, [caught_eip]
    CHECK .read, "EIP is at the instruction"
    mov eax, dr7
    CHECK 0x400, "GD is clear after that"
    mov eax, dr6
    and eax, 0xe00f
    CHECK 0x2000, "DR6 says BD"
    mov eax, 0x2400
    mov dr7, eax
    TRY .guarded_write
    mov dr3, eax
.guarded_write:
    CAUGHT 0x010000, "GD: MOV to DR3 is #DB"
    mov eax, dr3
    CHECK 0, "DR3 has kept its value"

    ; 2. A write for which two breakpoints wait is one trap, and DR6 tells both.
    xor eax, eax
    mov dr6, eax
    mov eax, watched
    mov dr1, eax
    inc eax
    mov dr2, eax
    mov eax, 0x03d00414             ; DR1: writes to 4 bytes; DR2: access to 1 byte
    mov dr7, eax
    mov dword ptr [caught], 0xbad
    mov dword ptr [watched], 1
    nop
    CAUGHT 0x010000, "a write to what DR1 and DR2 watch is one #DB"
    mov eax, dr6
    and eax, 0xe00f
    CHECK 6, "DR6 says B1 and B2"

    ; 3. INT1 (0xf1), meant for in-circuit emulators: a trap that DR6 doesn't tell of, and nobody checks a privilege.
    mov eax, 0x400
    mov dr7, eax
    xor eax, eax
    mov dr6, eax
    int1
.behind:
    CAUGHT 0x010000, "INT1 is vector 1"
    mov eax, [caught_eip]
    CHECK .behind, "EIP is behind it"
    mov eax, dr6
    and eax, 0xe00f
    CHECK 0, "DR6 says nothing"
    TRY .user
    push USER_DATA
    push user_top
    push 2
    push USER_CODE
    push user
    iret
.user:
    CAUGHT 0x010000, "INT1 in ring 3, through a gate of DPL 0"
    mov eax, [caught_eip]
    CHECK user.behind, "EIP is behind it"
    jmp finish32

user:
    int1
.behind:
    hlt

.align 4
watched: .long 0

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        ; 0x08 code
    .quad 0x00cf93000000ffff        ; 0x10 data
    .quad 0x00cffb000000ffff        ; 0x18 code of ring 3
    .quad 0x00cff3000000ffff        ; 0x20 data of ring 3
    TSS_DESCRIPTOR tss, TSS_SIZE - 1, 0x89          ; 0x28
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

.align 128
tss:
    .long 0, ring0_top, DATA32
    .space TSS_IO_MAP - 12
    .word TSS_SIZE                  ; no I/O map
.align 16
    .space 256
user_top:
    .space 512
ring0_top:
    .space 512
stack_top:
image_end:
