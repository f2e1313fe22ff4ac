; A greedy kernel: it fills the end of the first 4 GiB and the ends of both halves of its address space, each from the
; top down, 2 MiB a round, and in between all that is left of the upper half. It knows of nobody who might want some. An
; address that it has not mapped must fault as "not present", one that it has mapped must be the memory that it said, at
; once and always.

.equ FIRST_ROUNDS, 2
.equ UPPER_ROUNDS, 8
.equ LOWER_ROUNDS, 4
.equ SLOT, 0x00200000               ; what one directory entry covers
.equ FIRST_SLOT, 0x00000000ffe00000 ; the highest below 4 GiB, where 32-bit code could still reach ...
.equ UPPER_SLOT, 0xffffffffffe00000 ; ... of the upper half ...
.equ LOWER_SLOT, 0x00007fffffe00000 ; ... and of the lower
.equ SINGLES, 0x00a00000            ; memory for the first pages of a slot
.equ SHARED, 0x00800000             ; 2 MiB of memory that all slots share in the end
.equ STRIDE, 0x00010000             ; of a whole slot, look at every 16th page: 32 of 512
.equ NOTHING, 0x8000000000          ; a physical address, 512 GiB up, where no memory is: mapped, but never touched

.code64
greedy:
    mov rbx, FIRST_SLOT             ; rbx: the slot of this round, r12: its entry in the directory
    mov r12, fourth_directory + 511 * 8
    mov r13d, FIRST_ROUNDS
    call some_rounds
    mov rbx, UPPER_SLOT
    mov r12, top_directory + 511 * 8
    mov r13d, UPPER_ROUNDS
    call some_rounds
    call fill_upper_half
    mov rbx, LOWER_SLOT
    mov r12, edge_directory + 511 * 8
    mov r13d, LOWER_ROUNDS
some_rounds:
    inc dword ptr [rounds]
    mov dword ptr [wrong], 0
    call touch_slot                 ; nothing is there yet, whatever was there before us
    call map_first_pages
    call map_whole_slot
    say text_round
    mov eax, dword ptr [rounds]
    call print_decimal
    say text_mapped
    mov rax, rbx
    call print_hexadecimal
    call print_verdict
    sub rbx, SLOT
    sub r12, 8
    dec r13d
    jnz some_rounds
    ret

map_first_pages:                    ; an empty table into the directory, then four entries, downwards from the last
    mov rdi, spare_table            ; it still holds the last round's entries, but hangs in no directory
    xor eax, eax
    mov ecx, 512
    rep stosq
    mov qword ptr [r12], spare_table + PRESENT + WRITABLE
    xor ecx, ecx
.page:
    mov eax, ecx
    shl eax, 12
    lea rdx, [rax + SINGLES]        ; rdx: the memory, rdi: where it is to appear
    lea rdi, [rbx + SLOT - 0x1000]
    sub rdi, rax
    mov esi, 511
    sub esi, ecx
    lea rax, [rdx + PRESENT + WRITABLE]
    bts rax, 63                     ; NX
    mov [spare_table + rsi * 8], rax
    call compare_memory
    inc ecx
    cmp ecx, 4
    jb .page
    ret

map_whole_slot:                     ; one store maps a page of 2 MiB, in place of the table
    mov rax, SHARED + PRESENT + WRITABLE + LARGE + NX
    mov [r12], rax
    call forget_first_pages         ; four addresses are known to the processor by what they were
    xor ecx, ecx
.page:
    lea rdi, [rbx + rcx]
    lea rdx, [rcx + SHARED]
    call compare_memory
    add ecx, STRIDE
    cmp ecx, SLOT
    jb .page
    mov ecx, SLOT - 0x1000          ; and those four again: now they are other memory
.first:
    lea rdi, [rbx + rcx]
    lea rdx, [rcx + SHARED]
    call compare_memory
    sub ecx, 0x1000
    cmp ecx, SLOT - 0x5000
    ja .first
    ret

forget_first_pages:
    lea rdi, [rbx + SLOT - 0x4000]
    invlpg [rdi]
    invlpg [rdi + 0x1000]
    invlpg [rdi + 0x2000]
    invlpg [rdi + 0x3000]
    ret

compare_memory:                     ; rdi and rdx are to be the same memory: written at one, seen at the other
    mov rax, rdi
    xor eax, dword ptr [rounds]
    mov [rdi], rax
    cmp [rdx], rax
    jne .wrong
    not rax
    mov [rdx], rax
    cmp [rdi], rax
    jne .wrong
    ret
.wrong:
    inc dword ptr [wrong]
    ret

; The rest of the upper half, from its lowest address up: 255 entries of the root, 510 of the last GiBs but two, 504
; and 504 of the directories of those two. They are pages of 1 GiB and 2 MiB; a processor that knows none of 1 GiB
; takes their LARGE for a reserved bit, but nobody ever touches them.
fill_upper_half:
    mov rax, NOTHING + PRESENT + WRITABLE + LARGE + NX
    mov rdi, gigantic_pdpt
    mov ecx, 512
    rep stosq                       ; hangs nowhere yet
    mov edx, gigantic_pdpt + PRESENT + WRITABLE
    mov ecx, 256
.root:
    mov [pml4 + rcx * 8], rdx
    inc ecx
    cmp ecx, 511
    jb .root
    mov rdi, high_pdpt
    mov ecx, 510
    rep stosq
    mov rdi, directory + 8 * 8      ; the kernel's own: its upper place ends after 16 MiB, and so does its lower
    mov ecx, 504
    rep stosq
    mov rdi, top_directory
    mov ecx, 512 - UPPER_ROUNDS
    rep stosq
    say text_filled
    ret

compare_slots:                      ; all slots are the same memory now
    mov dword ptr [wrong], 0
    mov rax, 0x900dbeef900dbeef
    mov [SHARED], rax
    mov rbx, FIRST_SLOT
    mov ecx, FIRST_ROUNDS
    call .slots
    mov rbx, UPPER_SLOT
    mov ecx, UPPER_ROUNDS
    call .slots
    mov rbx, LOWER_SLOT
    mov ecx, LOWER_ROUNDS
    call .slots
    say text_same
    jmp print_verdict
.slots:
    cmp [rbx], rax
    je .good
    inc dword ptr [wrong]
.good:
    sub rbx, SLOT
    dec ecx
    jnz .slots
    ret

give_back:                          ; the entries go, then what the processor remembers of them
    mov dword ptr [wrong], 0
    mov dword ptr [touched], 0
    xor eax, eax
    mov rdi, pml4 + 256 * 8
    mov ecx, 255
    rep stosq
    mov rdi, high_pdpt
    mov ecx, 510
    rep stosq
    mov rdi, directory + 8 * 8
    mov ecx, 504
    rep stosq
    mov rdi, top_directory
    mov ecx, 512
    rep stosq
    mov rdi, edge_directory
    mov ecx, 512
    rep stosq
    mov rdi, fourth_directory
    mov ecx, 512
    rep stosq
    mov rax, cr3
    mov cr3, rax
    mov rbx, FIRST_SLOT
    mov r13d, FIRST_ROUNDS
    call .touch
    mov rbx, UPPER_SLOT
    mov r13d, UPPER_ROUNDS
    call .touch
    mov rbx, LOWER_SLOT
    mov r13d, LOWER_ROUNDS
    call .touch
    say text_back
    mov eax, dword ptr [touched]
    call print_decimal
    say text_touches
    jmp print_verdict
.touch:
    call touch_slot
    sub rbx, SLOT
    dec r13d
    jnz .touch
    ret

touch_slot:                         ; reads the first four and the last four pages: each must fault
    mov rdi, rbx
    call touch_four_pages
    lea rdi, [rbx + SLOT - 0x4000]
touch_four_pages:
    mov ecx, 4
touch_next:
    mov qword ptr [last_fault], 0
touch_it:
    mov rax, [rdi]
    inc dword ptr [wrong]           ; it has read something
    jmp touch_done
touch_faulted:                      ; the page fault handler goes on here
    inc dword ptr [touched]
    cmp [last_fault], rdi
    je touch_done
    inc dword ptr [wrong]
touch_done:
    add rdi, 0x1000
    dec ecx
    jnz touch_next
    ret

print_verdict:
    cmp dword ptr [wrong], 0
    jne .wrong
    say text_ok
    ret
.wrong:
    inc dword ptr [failures]
    say text_wrong
    mov eax, dword ptr [wrong]
    call print_decimal
    say new_line
    ret

text_round: .asciz "round "
text_mapped: .asciz ": mapped "
text_ok: .asciz " ok\n"
text_wrong: .asciz " WRONG, so often: "
text_filled: .asciz "guest64: the upper half is mine\n"
text_same: .asciz "guest64: all slots show the same memory"
text_back: .asciz "guest64: gave everything back, "
text_touches: .asciz " touches faulted"
