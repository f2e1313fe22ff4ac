; The processor notes in a page's entry that it used the page (accessed) and that it wrote to it (dirty), for 4 KiB and
; for 2 MiB alike. It sets the bits only when it walks the tables; as long as it remembers a translation it does not
; look. Hence the invlpg after clearing them.

.equ LARGE_PAGE, 0x00600000                     ; 2 MiB, by one entry of the directory ...
.equ LARGE_ENTRY, directory + 3 * 8
.equ NOTED, DEMAND_BASE + 0x1ff000              ; ... and the last page of the demand area: 4 KiB
.equ NOTED_ENTRY, demand_table + 511 * 8
.equ NOTED_MEMORY, 0x005ff000

.macro compare_bits entry, name, wanted
    mov rax, [\entry]
    and eax, ACCESSED + DIRTY
    compare \name, \wanted
.endm

.macro forget_bits entry, page
    and qword ptr [\entry], ~(ACCESSED + DIRTY)
    invlpg [\page]
.endm

.macro watch_bits entry, page
    compare_bits \entry, text_untouched, 0
    mov rax, [\page]
    compare_bits \entry, text_read, ACCESSED
    mov [\page], rax
    compare_bits \entry, text_written, ACCESSED + DIRTY
    forget_bits \entry, \page
    compare_bits \entry, text_cleared, 0
    mov [\page + 8], rax            ; a write straight away sets both
    compare_bits \entry, text_written_first, ACCESSED + DIRTY
.endm

.code64
check_accessed_and_dirty:
    say text_bits
    mov rax, NOTED_MEMORY + PRESENT + WRITABLE + NX
    mov [NOTED_ENTRY], rax
    watch_bits NOTED_ENTRY, NOTED
    say text_large_bits
    forget_bits LARGE_ENTRY, LARGE_PAGE
    watch_bits LARGE_ENTRY, LARGE_PAGE
    say text_upper
    mov rax, [demand_directory]
    and eax, ACCESSED               ; the walks went through the three upper levels too
    compare text_directory, ACCESSED
    mov rax, [low_pdpt + 8]
    and eax, ACCESSED
    compare text_pdpt, ACCESSED
    mov rax, [pml4]
    and eax, ACCESSED
    compare text_pml4, ACCESSED
    say new_line
    ret

text_bits: .asciz "guest64: accessed and dirty bits, 4 KiB:"
text_large_bits: .asciz "\nguest64: accessed and dirty bits, 2 MiB:"
text_upper: .asciz "\nguest64: accessed, above:"
text_untouched: .asciz " untouched"
text_read: .asciz ", read"
text_written: .asciz ", written"
text_cleared: .asciz ", cleared"
text_written_first: .asciz ", written first"
text_directory: .asciz " directory"
text_pdpt: .asciz ", pointers"
text_pml4: .asciz ", pml4"
