; PAE paging: three levels with entries of 8 bytes, 2 MiB pages, pages that must not be executed, reserved bits

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

.equ PRESENT, 1                     ; bits of an entry
.equ WRITE, 2
.equ USER, 4
.equ ACCESSED, 0x20
.equ DIRTY, 0x40
.equ LARGE, 0x80
.equ NX, 1 << 63
.equ PAE, 0x20                      ; CR4
.equ EFER, 0xc0000080
.equ NXE, 0x800

.equ WINDOW, 0x40000000             ; the second entry of four: what is checked
.equ READ_ONLY, WINDOW
.equ NO_EXECUTE, WINDOW + 0x1000
.equ USER_STACK, WINDOW + 0x2000
.equ USER_CODE_PAGE, WINDOW + 0x3000
.equ NOBODY, WINDOW + 0x4000
.equ TOO_HIGH, WINDOW + 0x5000      ; a frame above what any processor can address
.equ CODE_PAGE, WINDOW + 0x6000
.equ BIG, WINDOW + 0x200000         ; a 2 MiB page
.equ BIG_FRAME, 0x400000
.equ NX_DIRECTORY, WINDOW + 0x400000                ; the page table again, by an entry with NX
.equ RESERVED, WINDOW + 0x600000    ; a 2 MiB page whose address is no multiple of 2 MiB
.equ TOP, 0xc0000000                ; the fourth entry: the same directory as the second

.macro RING3 address, next          ; go to ring 3 at `address`
    TRY \next
    mov edx, \address
    jmp to_user
.endm

.macro CAUGHT_RESERVED wanted, text ; as CAUGHT, but for bit 0 of the error code, which some emulators don't set
    mov eax, [caught]
    and eax, ~1
    CHECK \wanted, \text
.endm

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
    mov eax, cr4
    or eax, PAE
    mov cr4, eax
    mov eax, pointers
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000              ; PG and WP
    mov cr0, eax

    ; 1. Without EFER.NXE, bit 63 is reserved, and a fetch looks like a read.
    TRY .reserved
    mov eax, [NO_EXECUTE]
.reserved:
    CAUGHT_RESERVED 0x0e0008, "bit 63 without NXE is a reserved bit: #PF, error 8"
    TRY .fetch_absent
    mov eax, NOBODY
    jmp eax
.fetch_absent:
    CAUGHT 0x0e0000, "executing an absent page without NXE: error 0"
    mov ecx, EFER
    rdmsr
    or eax, NXE
    wrmsr

    ; 2. With NXE.
    mov eax, [NO_EXECUTE]
    CHECK 0xc3, "with NXE: reading an NX page"
    TRY .execute
    mov eax, NO_EXECUTE
    jmp eax
.execute:
    CAUGHT 0x0e0011, "executing it: error 0x11"
    mov eax, [caught_cr2]
    CHECK NO_EXECUTE, "CR2 is the target"
    TRY .fetch_absent_nxe
    mov eax, NOBODY + 9
    jmp eax
.fetch_absent_nxe:
    CAUGHT 0x0e0010, "executing an absent page: error 0x10"
    mov eax, CODE_PAGE
    call eax                        ; a RET
    CHECK CODE_PAGE, "executing a page without NX"
    TRY .nx_directory
    mov eax, NX_DIRECTORY + 0x6000
    jmp eax
.nx_directory:
    CAUGHT 0x0e0011, "NX in the directory entry counts as well: error 0x11"
    TRY .too_high
    mov eax, [TOO_HIGH]
.too_high:
    CAUGHT_RESERVED 0x0e0008, "a frame beyond the physical addresses: error 8"
    TRY .reserved_2m
    mov [RESERVED + 0x1234], eax
.reserved_2m:
    CAUGHT_RESERVED 0x0e000a, "writing a 2M page with bit 13 set: error 0xa"
    mov eax, [caught_cr2]
    CHECK RESERVED + 0x1234, "CR2 is the address"
    TRY .write
    mov [READ_ONLY], eax
.write:
    CAUGHT 0x0e0003, "writing a read-only page: error 3"
    TRY .no_directory
    mov eax, [0x80000000]
.no_directory:
    CAUGHT 0x0e0000, "no directory: error 0"

    ; 3. A 2M page, and the accessed and dirty bits.
    mov eax, [BIG + 0x123456]
    mov eax, [directory1 + 8]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED, "2M page: reading sets A"
    mov dword ptr [BIG + 0x123456], 3
    mov eax, [directory1 + 8]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED + DIRTY, "2M page: writing sets D"
    mov eax, [BIG_FRAME + 0x123456]
    CHECK 3, "2M page: the frame has it"
    mov eax, [TOP + 0x200000 + 0x123456]
    CHECK 3, "the fourth directory is the second"
    TRY .big
    mov eax, BIG
    jmp eax
.big:
    CAUGHT 0x0e0011, "executing a 2M page with NX: error 0x11"
    mov eax, [NO_EXECUTE]
    mov eax, [table + 8]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED, "4K page: reading sets A"
    mov eax, [table + 12]
    CHECK NX >> 32, "and leaves the upper half alone"

    ; 4. Ring 3.
    mov byte ptr [idt + 0x80 * 8 + 5], 0xee
    RING3 USER_CODE_PAGE, .user
.user:
    CAUGHT 0x800000, "ring 3 executes its page"
    RING3 USER_STACK, .user_stack
.user_stack:
    CAUGHT 0x0e0015, "ring 3 executing its NX stack: error 0x15"
    RING3 CODE_PAGE, .supervisor
.supervisor:
    CAUGHT 0x0e0015, "ring 3 executing a page of ring 0: error 0x15"
    RING3 NOBODY, .user_absent
.user_absent:
    CAUGHT 0x0e0014, "ring 3 executing an absent page: error 0x14"
    RING3 USER_CODE_PAGE + user_write - user_page, .user_write
.user_write:
    CAUGHT 0x0e0007, "ring 3 writing its code: error 7"

    ; 5. An entry has 8 bytes: CMPXCHG8B changes it in one go.
    mov edx, NX >> 32
    mov eax, [table + 8]
    mov ecx, 0
    mov ebx, BIG_FRAME + 0x123000 + PRESENT
    lock cmpxchg8b [table + 8]
    invlpg [NO_EXECUTE]
    mov eax, [NO_EXECUTE + 0x456]
    CHECK 3, "another frame, without NX"
    mov byte ptr [BIG + 0x123000], 0xc3
    mov eax, NO_EXECUTE
    call eax
    CHECK NO_EXECUTE, "it can be executed now"

    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, cr4
    and eax, ~PAE
    mov cr4, eax
    jmp finish32

to_user:                            ; to ring 3 at EDX
    push USER_DATA
    push USER_STACK + 0x1000
    push 2
    push USER_CODE
    push edx
    mov eax, USER_DATA              ; or IRET would empty DS
    mov ds, eax
    iret

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

.align 32
pointers:                           ; the processor reads all four when CR3 is loaded; they have no rights
    .quad directory0 + PRESENT, directory1 + PRESENT, 0, directory1 + PRESENT

.align 4096
user_page:
    int 0x80
user_write:
    mov [USER_CODE_PAGE], eax
.align 4096
frames:                             ; three of them: of READ_ONLY, NO_EXECUTE and USER_STACK; the code is a RET
    .space 4096
    .long 0xc3
    .align 4096
    .space 4096
directory0:                         ; the first 16 MiB one to one
.rept 8
    .quad \+ * 0x200000 + PRESENT + WRITE + LARGE
.endr
    .space 504 * 8
directory1:
    .quad table + PRESENT + WRITE + USER
    .quad BIG_FRAME + PRESENT + WRITE + LARGE + NX
    .quad table + PRESENT + WRITE + USER + NX
    .quad BIG_FRAME + 0x2000 + PRESENT + WRITE + LARGE
    .space 508 * 8
table:
    .quad frames + PRESENT
    .quad frames + 0x1000 + PRESENT + NX
    .quad frames + 0x2000 + PRESENT + WRITE + USER + NX
    .quad user_page + PRESENT + USER
    .quad 0
    .quad frames + PRESENT + (1 << 51)
    .quad frames + 0x1000 + PRESENT
    .space 505 * 8

    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
