; two-level paging: 4 KiB and 4 MiB pages, the rights of ring 0 and ring 3, accessed and dirty bits, the TLB

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
.equ PSE, 0x10                      ; CR4
.equ WP, 0x10000                    ; CR0

.equ WINDOW, 0x40000000             ; a page table of its own: what is checked
.equ READ_ONLY, WINDOW
.equ PLAIN, WINDOW + 0x1000
.equ USER_READ_ONLY, WINDOW + 0x2000
.equ USER_PLAIN, WINDOW + 0x3000
.equ NOBODY, WINDOW + 0x4000
.equ BIG, 0x40400000                ; a 4 MiB page, of ring 0
.equ BIG_FRAME, 0x400000
.equ SUPERVISOR_DIRECTORY, 0x40800000               ; the table again, by an entry for ring 0 that is read-only

.macro RING3 code, next             ; run `code` in ring 3 with EBX = its address to touch
    TRY \next
    mov edx, \code
    jmp to_user
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
    or dword ptr [low_table + (user_page >> 12) * 4], USER
    mov eax, cr4
    or eax, PSE
    mov cr4, eax
    mov eax, page_directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax

    ; 1. Accessed and dirty bits.
    mov eax, [PLAIN]
    mov eax, [page_table + 4]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED, "reading sets A of the page"
    mov eax, [page_directory + 0x100 * 4]
    and eax, ACCESSED
    CHECK ACCESSED, "and A of the directory entry"
    mov dword ptr [PLAIN], 5
    mov eax, [page_table + 4]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED + DIRTY, "writing sets D"
    mov eax, [page_table + 0xc]
    and eax, ACCESSED + DIRTY
    CHECK 0, "of no other page"
    mov eax, [frames + 0x1000]
    CHECK 5, "the frame has it"
    mov eax, [BIG + 8]
    mov eax, [page_directory + 0x101 * 4]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED, "4M page: reading sets A"
    mov dword ptr [BIG + 0x345678], 6
    mov eax, [page_directory + 0x101 * 4]
    and eax, ACCESSED + DIRTY
    CHECK ACCESSED + DIRTY, "4M page: writing sets D"
    mov eax, [BIG_FRAME + 0x345678]
    CHECK 6, "4M page: the frame has it"

    ; 2. Faults of ring 0.
    TRY .absent
.read_absent:
    mov eax, [NOBODY + 0x123]
.absent:
    CAUGHT 0x0e0000, "reading an absent page: #PF, error 0"
    mov eax, [caught_cr2]
    CHECK NOBODY + 0x123, "CR2 is the address"
    mov eax, [caught_eip]
    CHECK .read_absent, "EIP is the instruction"
    TRY .write_absent
    mov dword ptr [NOBODY], eax
.write_absent:
    CAUGHT 0x0e0002, "writing an absent page: error 2"
    TRY .no_table
    mov eax, [0x80000000]
.no_table:
    CAUGHT 0x0e0000, "no page table: error 0"
    TRY .crossing
    mov eax, [NOBODY - 2]
.crossing:
    mov eax, [caught_cr2]
    CHECK NOBODY, "across pages: CR2 is the first address that is absent"
    TRY .jump
    mov eax, NOBODY + 7
    jmp eax
.jump:
    CAUGHT 0x0e0000, "executing an absent page: error 0"
    mov eax, [caught_eip]
    CHECK NOBODY + 7, "EIP is the target"
    mov dword ptr [READ_ONLY], 7
    mov eax, [frames]
    CHECK 7, "ring 0 writes read-only pages while WP is 0"
    mov eax, cr0
    or eax, WP
    mov cr0, eax
    TRY .protected
    mov dword ptr [READ_ONLY], 8
.protected:
    CAUGHT 0x0e0003, "not while WP is 1: error 3"
    TRY .by_directory
    mov dword ptr [SUPERVISOR_DIRECTORY + 0x1000], 9
.by_directory:
    CAUGHT 0x0e0003, "a read-only directory entry counts as well"
    mov eax, [frames]
    CHECK 7, "nothing was written"

    ; 3. Ring 3.
    mov byte ptr [idt + 0x80 * 8 + 5], 0xee
    mov ebx, USER_PLAIN
    RING3 user_write, .user_plain
.user_plain:
    CAUGHT 0x800000, "ring 3 writes its pages"
    mov ebx, USER_READ_ONLY
    RING3 user_write, .user_read_only
.user_read_only:
    CAUGHT 0x0e0007, "ring 3 writing a read-only page: error 7"
    mov ebx, USER_READ_ONLY
    RING3 user_read, .user_reads
.user_reads:
    CAUGHT 0x800000, "ring 3 reading it"
    mov ebx, PLAIN
    RING3 user_read, .supervisor
.supervisor:
    CAUGHT 0x0e0005, "ring 3 reading a page of ring 0: error 5"
    mov ebx, SUPERVISOR_DIRECTORY + 0x3000
    RING3 user_read, .directory
.directory:
    CAUGHT 0x0e0005, "by the directory entry: error 5"
    mov ebx, BIG
    RING3 user_write, .big
.big:
    CAUGHT 0x0e0007, "ring 3 writing a 4M page of ring 0: error 7"
    mov ebx, NOBODY
    RING3 user_read, .user_absent
.user_absent:
    CAUGHT 0x0e0004, "ring 3 reading an absent page: error 4"
    RING3 NOBODY + 0x10, .user_jump
.user_jump:
    CAUGHT 0x0e0004, "ring 3 executing it: error 4"

    ; 4. The TLB: an entry that has become more permissive counts at once, any other one after INVLPG.
    mov dword ptr [page_table + 16], frames + PRESENT + WRITE
    mov eax, [NOBODY]
    CHECK 7, "an absent page made present"
    mov dword ptr [page_table + 16], frames + 0x1000 + PRESENT + WRITE
    invlpg [NOBODY]
    mov eax, [NOBODY]
    CHECK 5, "another frame, after INVLPG"
    mov dword ptr [page_table + 16], frames + PRESENT + WRITE
    mov eax, cr3
    mov cr3, eax
    mov eax, [NOBODY]
    CHECK 7, "and after MOV to CR3"
    mov dword ptr [page_table + 16], 0
    invlpg [NOBODY + 0xfff]
    TRY .absent_again
    mov eax, [NOBODY]
.absent_again:
    CAUGHT 0x0e0000, "absent again"
    mov dword ptr [page_directory + 0x101 * 4], PRESENT + WRITE + LARGE
    invlpg [BIG + 0x200000]
    mov eax, [BIG + multiboot_header]
    CHECK 0x1badb002, "INVLPG anywhere in a 4M page"

    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, [frames]
    CHECK 7, "paging off again"
    jmp finish32

to_user:                            ; to ring 3 at EDX
    push USER_DATA
    push USER_PLAIN + 0x1000
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

.align 4096
user_page:                          ; what ring 3 does; the low 4 MiB but for this page are ring 0's
user_read:
    mov eax, [ebx]
    int 0x80
user_write:
    mov [ebx], ebx
    int 0x80
.align 4096
page_directory:
    .long low_table + PRESENT + WRITE + USER
    .long BIG_FRAME + PRESENT + WRITE + LARGE
    .space 0xfe * 4
    .long page_table + PRESENT + WRITE + USER       ; 0x100: WINDOW
    .long BIG_FRAME + PRESENT + WRITE + LARGE       ; 0x101: BIG
    .long page_table + PRESENT                      ; 0x102: SUPERVISOR_DIRECTORY
    .space 0x2fd * 4
low_table:                          ; the first 4 MiB one to one
.rept 1024
    .long \+ * 4096 + PRESENT + WRITE
.endr
page_table:
    .long frames + PRESENT
    .long frames + 0x1000 + PRESENT + WRITE
    .long frames + 0x2000 + PRESENT + USER
    .long frames + 0x3000 + PRESENT + WRITE + USER
    .space 4080
frames: .space 4 * 4096

    .space 1024
ring0_top:
    .space 1024
stack_top:
image_end:
