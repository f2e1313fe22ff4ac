; A greedy kernel: it fills its address space from the top down, 4 MiB a round, and leaves nothing to anybody.
; It knows of nobody who might want some. An address that it has not mapped must fault as "not present", one that it
; has mapped must be the memory that it said, at once and always.

.equ ROUNDS, 12
.equ SLOT, 0x00400000               ; what one directory entry covers
.equ FIRST_SLOT, 0xffc00000         ; the highest
.equ SINGLES, 0x00700000            ; memory for the first pages of a slot
.equ SHARED, 0x00800000             ; 4 MiB of memory that all slots share in the end
.equ STRIDE, 0x00010000             ; of a whole slot, look at every 16th page: 64 of 1024

greedy:
    mov edi, shared_table           ; one table full of entries, for all slots
    mov eax, SHARED + PRESENT + WRITABLE
    mov ecx, 1024
.entry:
    stosd
    add eax, 0x1000
    loop .entry

    mov ebx, FIRST_SLOT             ; ebx: the slot of this round
.round:
    inc dword ptr [rounds]
    mov dword ptr [wrong], 0
    call touch_slot                 ; nothing is there yet, whatever was there before us
    call map_first_pages
    call map_whole_slot
    say text_round
    mov eax, dword ptr [rounds]
    call print_decimal
    say text_mapped
    mov eax, ebx
    call print_hexadecimal
    call print_verdict
    sub ebx, SLOT
    cmp dword ptr [rounds], ROUNDS
    jb .round
    ret

map_first_pages:                    ; an empty table into the directory, then four entries, downwards from the last
    mov edi, spare_table            ; it still holds the last round's entries, but hangs in no directory
    xor eax, eax
    mov ecx, 1024
    rep stosd
    mov eax, ebx
    shr eax, 22
    mov dword ptr [page_directory + eax * 4], spare_table + PRESENT + WRITABLE
    xor ecx, ecx
.page:
    mov eax, ecx
    shl eax, 12
    lea edx, [eax + SINGLES]        ; edx: the memory, edi: where it is to appear
    lea edi, [ebx + SLOT - 0x1000]
    sub edi, eax
    mov esi, 1023
    sub esi, ecx
    lea eax, [edx + PRESENT + WRITABLE]
    mov dword ptr [spare_table + esi * 4], eax
    call compare_memory
    inc ecx
    cmp ecx, 4
    jb .page
    ret

map_whole_slot:                     ; one write into the directory maps 1024 pages
    mov eax, ebx
    shr eax, 22
    mov dword ptr [page_directory + eax * 4], shared_table + PRESENT + WRITABLE
    call forget_first_pages         ; four of them are known to the processor by what they were
    xor ecx, ecx
.page:
    lea edi, [ebx + ecx]
    lea edx, [ecx + SHARED]
    call compare_memory
    add ecx, STRIDE
    cmp ecx, SLOT
    jb .page
    mov ecx, SLOT - 0x1000          ; and those four again: now they are other memory
.first:
    lea edi, [ebx + ecx]
    lea edx, [ecx + SHARED]
    call compare_memory
    sub ecx, 0x1000
    cmp ecx, SLOT - 0x5000
    ja .first
    ret

forget_first_pages:
    lea edi, [ebx + SLOT - 0x4000]
    invlpg [edi]
    invlpg [edi + 0x1000]
    invlpg [edi + 0x2000]
    invlpg [edi + 0x3000]
    ret

compare_memory:                     ; edi and edx are to be the same memory: written at one, seen at the other
    mov eax, edi
    xor eax, dword ptr [rounds]
    mov dword ptr [edi], eax
    cmp dword ptr [edx], eax
    jne .wrong
    not eax
    mov dword ptr [edx], eax
    cmp dword ptr [edi], eax
    jne .wrong
    ret
.wrong:
    inc dword ptr [wrong]
    ret

compare_slots:                      ; all slots are the same memory now
    mov dword ptr [wrong], 0
    mov dword ptr [SHARED], 0x900dbeef
    mov ebx, FIRST_SLOT
    mov ecx, ROUNDS
.slot:
    cmp dword ptr [ebx], 0x900dbeef
    je .good
    inc dword ptr [wrong]
.good:
    sub ebx, SLOT
    loop .slot
    say text_same
    jmp print_verdict

give_back:                          ; the directory entries go, then what the processor remembers of them
    mov dword ptr [wrong], 0
    mov dword ptr [touched], 0
    mov dword ptr [rounds_back], ROUNDS
    mov ebx, FIRST_SLOT
.slot:
    mov eax, ebx
    shr eax, 22
    mov dword ptr [page_directory + eax * 4], 0
    call forget_first_pages
    xor ecx, ecx
.page:                              ; the pages in between we have never used, and never will
    lea edi, [ebx + ecx]
    invlpg [edi]
    add ecx, STRIDE
    cmp ecx, SLOT
    jb .page
    call touch_slot
    sub ebx, SLOT
    dec dword ptr [rounds_back]
    jnz .slot
    say text_back
    mov eax, dword ptr [touched]
    call print_decimal
    say text_touches
    jmp print_verdict

touch_slot:                         ; reads the first four and the last four pages: each must fault
    mov edi, ebx
    call touch_four_pages
    lea edi, [ebx + SLOT - 0x4000]
touch_four_pages:
    mov ecx, 4
touch_next:
    mov dword ptr [last_fault], 0
touch_it:
    mov eax, dword ptr [edi]
    inc dword ptr [wrong]           ; it has read something
    jmp touch_done
touch_faulted:                      ; the page fault handler goes on here
    inc dword ptr [touched]
    cmp dword ptr [last_fault], edi
    je touch_done
    inc dword ptr [wrong]
touch_done:
    add edi, 0x1000
    loop touch_next
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

.align 4
rounds: .long 0                     ; begun so far
rounds_back: .long 0
wrong: .long 0                      ; what was not as it should be, of this round
touched: .long 0                    ; touches that faulted
text_round: .asciz "round "
text_mapped: .asciz ": mapped "
text_ok: .asciz " ok\n"
text_wrong: .asciz " WRONG, so often: "
text_same: .asciz "guest: all of them show the same memory"
text_back: .asciz "guest: unmapped them again, "
text_touches: .asciz " touches faulted"

.align 4096
spare_table: .space 4096
shared_table: .space 4096
