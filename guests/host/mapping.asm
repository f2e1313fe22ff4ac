; Mappings: a program may have the memory that it was given at any address, and as often as it likes, but for the
; addresses that the kernel keeps for itself.

; Are the EDX bytes at EBX whole pages, and none of the kernel's? CF = 1 if not. Changes EAX only.
own_range:
    mov eax, ebx
    or eax, edx
    test eax, PAGE_SIZE - 1
    jnz .bad
    test edx, edx
    jz .bad
    lea eax, [edx - 1]
    add eax, ebx                        ; the last byte
    jc .bad                             ; around the end of all addresses
    cmp eax, HOST_MEMORY
    jb .good
    cmp ebx, HOST_END
    jb .bad
.good:
    clc
    ret
.bad:
    stc
    ret

; map(address, offset, size) -> 0. Pages of the program's memory, from this offset on; bit 1 of the offset: writable.
; What was there before is there no longer.
sys_map:
    call own_range
    jc bad_call
    test ecx, (PAGE_SIZE - 1) & ~WRITABLE
    jnz bad_call
    mov ebp, [current]
    mov eax, [ebp + PROCESS_MEMORY_SIZE]
    sub eax, edx                        ; the last offset from which so many bytes can be had
    jb bad_call
    mov esi, ecx
    and esi, FRAME
    cmp esi, eax
    ja bad_call
    add ecx, [ebp + PROCESS_MEMORY]
    or ecx, PRESENT + USER
    mov edi, cr3
    mov esi, edx
.page:
    mov eax, ebx
    call map_page
    invlpg [ebx]
    add ebx, PAGE_SIZE
    add ecx, PAGE_SIZE
    sub esi, PAGE_SIZE
    jnz .page
    xor eax, eax
    ret

; unmap(address, -, size) -> 0. Also of what was not there: where there is no table, it goes on with the next 4 MiB.
; A whole address space takes longer than a tick, so interrupts are let in once a table.
sys_unmap:
    call own_range
    jc bad_call
    lea ebp, [ebx + edx - 1]            ; the last byte
    mov edi, cr3
.page:
    mov eax, ebx
    shr eax, 22
    mov esi, [edi + eax*4]
    test esi, PRESENT
    jnz .table
    or ebx, 0x003fffff
    jmp .next
.table:
    and esi, FRAME
    mov eax, ebx
    shr eax, 12
    and eax, 1023
    mov dword ptr [esi + eax*4], 0
    invlpg [ebx]
    or ebx, PAGE_SIZE - 1
.next:
    cmp ebx, ebp
    jae .done
    inc ebx
    test ebx, 0x003fffff
    jnz .page
    sti                                 ; from the next instruction but one on
    jmp .open
.open:
    jmp .closing                        ; two jumps: not every processor looks at its interrupts after each instruction
.closing:
    cli
    jmp .page
.done:
    xor eax, eax
    ret
