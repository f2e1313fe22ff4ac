; writes page-table entries in every way that an x86 can: whatever the instruction, the new mapping must hold
;
; Two page tables lie side by side and map the 8 MiB from 0x40000000. Each way writes some entries, always others, and
; then reads through them: every frame begins with its own physical address, so a page tells which frame it is.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"
.include "guest/console.asm"

.equ WINDOW, 0x40000000             ; what the two tables map
.equ FRAMES, 0x00300000             ; 64 frames to be mapped there
.equ FRAME_COUNT, 64
.equ PRESENT, 1
.equ BITS, 3                        ; present, writable

.macro expect number, frame         ; entry `number` must map frame `frame`; reads as a list under each way
    mov edi, WINDOW + (\number) * 4096
    mov edx, FRAMES + (\frame) * 4096
    call look
.endm

.macro way name                     ; the line of one way of writing
    mov esi, \name
    call report
.endm

start:
    cli
    cld
    mov esp, stack_top
    call console_initialise

    mov edi, low_table              ; the first 4 MiB one to one: this image, and the frames
    mov eax, BITS
    mov ecx, 1024
.page:
    stosd
    add eax, 0x1000
    loop .page
    mov eax, FRAMES
    mov ecx, FRAME_COUNT
.frame:
    mov dword ptr [eax], eax
    add eax, 0x1000
    loop .frame
    mov dword ptr [directory], low_table + BITS
    mov dword ptr [directory + (WINDOW >> 22) * 4], table + BITS
    mov dword ptr [directory + (WINDOW >> 22) * 4 + 4], table + 0x1000 + BITS
    mov eax, directory
    mov cr3, eax
    mov eax, cr4
    or eax, 0x200                   ; OSFXSR: the kernel may use SSE
    mov cr4, eax
    mov eax, cr0
    and eax, 0xfffffff3             ; not EM, not TS: there is a floating point unit
    or eax, 0x80010002              ; paging, write protection, MP
    mov cr0, eax

    mov dword ptr [table], FRAMES + BITS
    expect 0, 0
    way text_mov

    mov word ptr [table + 1 * 4 + 2], (FRAMES + 0x1000) >> 16   ; an entry in pieces: present last
    mov byte ptr [table + 1 * 4 + 1], ((FRAMES + 0x1000) >> 8) & 0xff
    mov byte ptr [table + 1 * 4], BITS
    expect 1, 1
    way text_pieces

    mov edi, table + 2 * 4          ; four entries for one frame
    mov eax, FRAMES + 2 * 4096 + BITS
    mov ecx, 4
    rep stosd
    expect 2, 2
    expect 3, 2
    expect 4, 2
    expect 5, 2
    way text_stosd

    mov esi, entries
    mov edi, table + 2 * 4          ; the same four, another frame each
    mov ecx, 4
    rep movsd
    expect 2, 6
    expect 3, 7
    expect 4, 8
    expect 5, 9
    way text_movsd

    mov eax, FRAMES + 10 * 4096 + BITS
    xchg dword ptr [table], eax
    expect 0, 10
    way text_xchg

    mov eax, dword ptr [table]      ; what is there: with the accessed bit, that the last look has set
    mov ecx, FRAMES + 11 * 4096 + BITS
    lock cmpxchg dword ptr [table], ecx
    expect 0, 11
    way text_cmpxchg

    mov dword ptr [table + 6 * 4], FRAMES + 12 * 4096 + BITS - PRESENT
    bts dword ptr [table + 6 * 4], 0
    expect 6, 12
    way text_bts

    add dword ptr [table + 6 * 4], 4096     ; the next frame
    expect 6, 13
    way text_add

    mov eax, 4096
    lock xadd dword ptr [table + 6 * 4], eax
    expect 6, 14
    way text_xadd

    mov ebp, esp
    mov esp, table + 9 * 4          ; a stack in the page table: it grows down to entry 7
    push FRAMES + 15 * 4096 + BITS
    mov eax, FRAMES + 16 * 4096 + BITS
    push eax
    mov esp, ebp
    expect 8, 15
    expect 7, 16
    way text_push

    mov ebp, esp
    mov esp, table + 18 * 4         ; pushad: eax is the highest of the eight entries, edi the lowest
    mov eax, FRAMES + 17 * 4096 + BITS
    mov ecx, FRAMES + 18 * 4096 + BITS
    mov edi, FRAMES + 19 * 4096 + BITS
    xor edx, edx                    ; the other five stay "not present": their bit 0 is 0
    xor ebx, ebx
    xor esi, esi
    pushad
    mov esp, ebp
    expect 17, 17
    expect 16, 18
    expect 10, 19
    way text_pushad

    movups xmm0, xmmword ptr [entries]
    movups xmmword ptr [table + 20 * 4], xmm0
    expect 20, 6
    expect 21, 7
    expect 22, 8
    expect 23, 9
    way text_movups

    movdqu xmm1, xmmword ptr [entries]
    movdqu xmmword ptr [table + 21 * 4], xmm1   ; not on a multiple of 16
    expect 20, 6
    expect 21, 6
    expect 22, 7
    expect 23, 8
    expect 24, 9
    way text_movdqu

    mov eax, dword ptr [table + 20 * 4]     ; two entries at once, if they are what we think
    mov edx, dword ptr [table + 21 * 4]
    mov ebx, FRAMES + 20 * 4096 + BITS
    mov ecx, FRAMES + 21 * 4096 + BITS
    lock cmpxchg8b qword ptr [table + 20 * 4]
    expect 20, 20
    expect 21, 21
    way text_cmpxchg8b

    ; A store across the border of the two tables: the upper half of entry 1023 and the lower half of entry 1024.
    ; Before, they map frames 0 (0x00300000) and 32 (0x00320000); the halves make them 16 (0x00310000) and 33
    ; (0x00321000).
    mov dword ptr [table + 1023 * 4], FRAMES + BITS
    mov dword ptr [table + 1024 * 4], FRAMES + 32 * 4096 + BITS
    expect 1023, 0
    expect 1024, 32
    mov dword ptr [table + 1023 * 4 + 2], ((FRAMES + 0x10000) >> 16) + ((0x1000 + BITS) << 16)
    expect 1023, 16
    expect 1024, 33
    way text_crossing

    mov esi, entries                        ; and a wide one: entries 1022 to 1025
    movups xmm0, xmmword ptr [esi]
    movups xmmword ptr [table + 1022 * 4], xmm0
    expect 1022, 6
    expect 1023, 7
    expect 1024, 8
    expect 1025, 9
    way text_crossing_wide

    cmp dword ptr [failures], 0
    jne .failed
    say text_done
    jmp .stop
.failed:
    mov al, 1
    out 0xf4, al                    ; a debug exit where there is one
.stop:
    cli
    hlt
    jmp .stop

look:                               ; the page at edi must be the frame at edx
    invlpg [edi]
    mov eax, dword ptr [edi]
    cmp eax, edx
    je .right
    inc dword ptr [wrong]
.right:
    ret

report:                             ; esi: the way that has just been tried
    call print
    cmp dword ptr [wrong], 0
    jne .wrong
    say text_ok
    ret
.wrong:
    say text_wrong
    inc dword ptr [failures]
    mov dword ptr [wrong], 0
    ret

text_mov: .asciz "ptwrites: mov"
text_pieces: .asciz "ptwrites: mov of a word and two bytes"
text_stosd: .asciz "ptwrites: rep stosd"
text_movsd: .asciz "ptwrites: rep movsd"
text_xchg: .asciz "ptwrites: xchg"
text_cmpxchg: .asciz "ptwrites: lock cmpxchg"
text_bts: .asciz "ptwrites: bts"
text_add: .asciz "ptwrites: add"
text_xadd: .asciz "ptwrites: lock xadd"
text_push: .asciz "ptwrites: push"
text_pushad: .asciz "ptwrites: pushad"
text_movups: .asciz "ptwrites: movups"
text_movdqu: .asciz "ptwrites: movdqu"
text_cmpxchg8b: .asciz "ptwrites: lock cmpxchg8b"
text_crossing: .asciz "ptwrites: mov across two tables"
text_crossing_wide: .asciz "ptwrites: movups across two tables"
text_ok: .asciz " ok\n"
text_wrong: .asciz " WRONG\n"
text_done: .asciz "ptwrites: done\n"

.align 4
wrong: .long 0
.align 4
entries:                            ; unaligned on purpose: 4 bytes is all they get
    .long FRAMES + 6 * 4096 + BITS, FRAMES + 7 * 4096 + BITS, FRAMES + 8 * 4096 + BITS, FRAMES + 9 * 4096 + BITS

.align 4096
directory: .space 4096
low_table: .space 4096
table: .space 2 * 4096              ; side by side, so that a store can cross from one to the other
    .space 4096
stack_top:
image_end:
