; Two-level page tables: the directory has 1024 entries of 4 MiB each, a page table 1024 entries of 4 KiB each.
; The kernel's memory is mapped one to one, so it can edit the tables at the addresses that the processor knows them by.

.equ PRESENT, 0x01                  ; bits of an entry
.equ WRITABLE, 0x02
.equ USER, 0x04
.equ ACCESSED, 0x20
.equ DIRTY, 0x40

.equ CR0_PROTECTION, 0x00000001
.equ CR0_WRITE_PROTECT, 0x00010000  ; read-only holds for the kernel as well
.equ CR0_PAGING, 0x80000000

.equ MEMORY_TABLES, 4               ; 4 tables * 1024 pages * 4 KiB = 16 MiB, all our memory

start_paging:
    mov edi, memory_tables          ; every page of memory, writable, not for programs
    mov eax, PRESENT + WRITABLE
    mov ecx, MEMORY_TABLES * 1024
.page:
    stosd
    add eax, 0x1000
    loop .page
    mov dword ptr [memory_tables], 0    ; page 0 stays out: a null pointer is to be noticed

    mov eax, user_program           ; the program's code and its strings: for programs, read-only
.code_page:
    mov edx, eax
    shr edx, 12
    and dword ptr [memory_tables + edx * 4], ~WRITABLE
    or dword ptr [memory_tables + edx * 4], USER
    add eax, 0x1000
    cmp eax, user_program_end
    jb .code_page
    mov edx, user_stack             ; and one page of stack
    shr edx, 12
    or dword ptr [memory_tables + edx * 4], USER

    mov dword ptr [page_directory], memory_tables + PRESENT + WRITABLE + USER   ; the pages' own bits narrow it down
    mov dword ptr [page_directory + 4], memory_tables + 0x1000 + PRESENT + WRITABLE
    mov dword ptr [page_directory + 8], memory_tables + 0x2000 + PRESENT + WRITABLE
    mov dword ptr [page_directory + 12], memory_tables + 0x3000 + PRESENT + WRITABLE
    mov dword ptr [page_directory + (DEMAND_BASE >> 22) * 4], demand_table + PRESENT + WRITABLE + USER

    mov eax, page_directory
    mov cr3, eax
    mov eax, cr0
    or eax, CR0_PAGING + CR0_WRITE_PROTECT
    mov cr0, eax
    jmp .paged                      ; what was fetched before belongs to the time before
.paged:
    say text_paging
    mov eax, cr3
    compare text_cr3, page_directory
    mov eax, cr0
    and eax, CR0_PAGING + CR0_WRITE_PROTECT + CR0_PROTECTION
    compare text_cr0, CR0_PAGING + CR0_WRITE_PROTECT + CR0_PROTECTION
    mov eax, 0x12345678             ; cr2 is a register like any other, until the next page fault
    mov cr2, eax
    xor eax, eax
    mov eax, cr2
    compare text_cr2, 0x12345678
    say new_line
    ret

; The processor notes in a page's entry that it used the page (accessed) and that it wrote to it (dirty). It sets the
; bits only when it walks the tables; as long as it remembers a translation it does not look. Hence the invlpg after
; clearing them.
.equ NOTED, DEMAND_BASE + 0x3ff000              ; the last page of the demand area ...
.equ NOTED_ENTRY, demand_table + 1023 * 4       ; ... is the last entry of its table
.equ NOTED_MEMORY, 0x00500000

.macro compare_bits name, expected
    mov eax, dword ptr [NOTED_ENTRY]
    and eax, ACCESSED + DIRTY
    compare \name, \expected
.endm

.macro forget_bits
    and dword ptr [NOTED_ENTRY], ~(ACCESSED + DIRTY)
    invlpg [NOTED]
.endm

check_accessed_and_dirty:
    say text_bits
    mov dword ptr [NOTED_ENTRY], NOTED_MEMORY + PRESENT + WRITABLE
    compare_bits text_untouched, 0
    mov eax, dword ptr [NOTED]
    compare_bits text_read, ACCESSED
    mov dword ptr [NOTED], eax
    compare_bits text_written, ACCESSED + DIRTY
    forget_bits
    compare_bits text_cleared, 0
    mov eax, dword ptr [NOTED]
    compare_bits text_read, ACCESSED
    mov dword ptr [NOTED], eax
    compare_bits text_written, ACCESSED + DIRTY
    forget_bits
    mov dword ptr [NOTED + 4], eax  ; a write straight away sets both
    compare_bits text_written_first, ACCESSED + DIRTY
    mov eax, dword ptr [page_directory + (DEMAND_BASE >> 22) * 4]
    and eax, ACCESSED               ; the walks went through the directory too
    compare text_directory, ACCESSED
    say new_line
    ret

text_paging: .asciz "guest: paging is on, 16 MiB one to one without page 0:"
text_cr3: .asciz " cr3"
text_cr0: .asciz ", cr0"
text_cr2: .asciz ", cr2"
text_bits: .asciz "guest: accessed and dirty bits:"
text_untouched: .asciz " untouched"
text_read: .asciz ", read"
text_written: .asciz ", written"
text_cleared: .asciz ", cleared"
text_written_first: .asciz ", written first"
text_directory: .asciz ", directory"

.align 4096
page_directory: .space 4096
memory_tables: .space MEMORY_TABLES * 4096
demand_table: .space 4096           ; addresses 0x40000000-0x403fffff
