; a guest that maps its pages where the hypervisor's region is: one, many by one instruction, 4 MiB by one store, and one
; after the other
;
; It knows of no region: it only writes through each new mapping, and looks for what it wrote in the memory behind it.

.origin 0x100000
.entry start

FRAMES = 0x00400000                     ; 4 MiB of memory for what is mapped
TOP    = 0xffc00000                     ; the last 4 MiB of addresses ...
NEXT   = 0xff800000                     ; ... and those before them
MANY   = 64
SINGLES = 24
BITS = 3                                ; present, writable

start:
    cli
    cld
    mov esp, stack_top
    mov edi, low_tables                 ; 8 MiB one to one
    mov eax, BITS
    mov ecx, 2048
.page:
    stosd
    add eax, 0x1000
    loop .page
    mov edi, full_table                 ; a table for later
    mov eax, FRAMES + BITS
    mov ecx, 1024
.entry:
    stosd
    add eax, 0x1000
    loop .entry
    mov dword ptr [directory], low_tables + BITS
    mov dword ptr [directory + 4], low_tables + 4096 + BITS
    mov dword ptr [directory + 1022 * 4], next_table + BITS
    mov dword ptr [directory + 1023 * 4], top_table + BITS
    mov eax, directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    jmp paging
paging:

; A table that hangs in no directory is nobody's business.
elsewhere:
    mov dword ptr [unused_table + 1022 * 4], FRAMES + BITS
    jmp elsewhere_done
elsewhere_done:

; One page, high up.
    mov edi, TOP + 1022 * 4096
    mov edx, FRAMES + 1022 * 4096
once:
    mov dword ptr [top_table + 1022 * 4], FRAMES + 1022 * 4096 + BITS
    call compare
once_done:
    mov eax, cr3                        ; the entry will be written again, as it is: the processor has to forget it
    mov cr3, eax
    inc dword ptr [stage]

; Many, from the top down, by one instruction.
    mov esi, full_table + 1023 * 4
    mov edi, top_table + 1023 * 4
    mov ecx, MANY
    std
many:
    rep movsd
    cld
    mov edi, TOP + 1023 * 4096
    mov edx, FRAMES + 1023 * 4096
    mov ebx, MANY
.look:
    call compare
    sub edi, 4096
    sub edx, 4096
    dec ebx
    jnz .look
many_done:
    mov eax, cr3
    mov cr3, eax
    inc dword ptr [stage]

; The whole 4 MiB by one store to the directory. Those that were there before show the same memory.
whole:
    mov dword ptr [directory + 1023 * 4], full_table + BITS
    mov edi, TOP
    mov edx, FRAMES
.look:
    call compare
    add edi, 4096 * 33
    add edx, 4096 * 33
    cmp edx, FRAMES + 1024 * 4096
    jb .look
whole_done:
    inc dword ptr [stage]

; One page after the other, downwards, each used at once.
    mov ebp, 1023
one_by_one:
    mov edx, ebp
    shl edx, 12
    lea edi, [edx + NEXT]
    add edx, FRAMES
    lea eax, [edx + BITS]
    mov dword ptr [next_table + ebp * 4], eax
    call compare
    dec ebp
    cmp ebp, 1023 - SINGLES
    ja one_by_one
one_by_one_done:
    inc dword ptr [stage]

; And a page goes away again: nothing in that for anybody.
    mov dword ptr [next_table + 1023 * 4], 0
    invlpg [NEXT + 1023 * 4096]
    inc dword ptr [stage]
stop:
    cli
    hlt
    jmp stop

compare:                                ; written at EDI, seen at EDX, and the other way round
    mov dword ptr [edi], edi
    cmp dword ptr [edx], edi
    jne .wrong
    not edi
    mov dword ptr [edx], edi
    not edi
    mov eax, dword ptr [edi]
    not eax
    cmp eax, edi
    jne .wrong
    inc dword ptr [right]
    ret
.wrong:
    inc dword ptr [wrong]
    ret

.align 4096
stage: .long 0                          ; how far we have come
right: .long 0
wrong: .long 0
.align 4096
directory:    .space 4096
low_tables:   .space 2 * 4096
full_table:   .space 4096
top_table:    .space 4096
next_table:   .space 4096
unused_table: .space 4096
    .space 4096
stack_top:
