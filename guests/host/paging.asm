; Page directories, tables, and the check of a program's pointers.
;
; Two levels of 4 KiB pages. Every directory maps [32 MiB, 64 MiB) at its physical address, for ring 0 only, so the
; kernel reaches its tables, stacks and processes by one number in whichever directory it happens to be. A table's
; entries decide on the rights; the directory's entries allow everything.

PRESENT    = 1
WRITABLE   = 2
USER       = 4
USER_READ  = PRESENT + USER
USER_WRITE = PRESENT + WRITABLE + USER
FRAME      = 0xfffff000                 ; the address in a table entry, without its flags
TABLE_SPAN = 0x00400000                 ; what one table maps

; EAX = a frame never used before, full of zeros; other registers are kept. No frame is ever given back: two
; processes with at most 256 pages each and some twenty page tables use 3 of the 28 MiB there are; fifteen more, with
; 256 pages each and the tables for 2 GiB, 18 MiB at most.
new_frame:
    mov eax, [next_frame]
    add dword ptr [next_frame], PAGE_SIZE
    pushad
    mov edi, eax
    xor eax, eax
    mov ecx, PAGE_SIZE / 4
    rep stosd
    popad
    ret

; Map EDX whole tables (4 MiB each) from virtual EAX on to physical memory from ECX on; ECX has the flags in it.
; EDI = directory. Keeps EDI.
map_tables:
    push edi
    shr eax, 22
    lea esi, [edi + eax*4]              ; the directory's entry
.table:
    call new_frame
    mov edi, eax
    or eax, USER_WRITE
    mov [esi], eax
    add esi, 4
    mov ebx, 1024
.entry:
    mov [edi], ecx
    add edi, 4
    add ecx, PAGE_SIZE
    dec ebx
    jnz .entry
    dec edx
    jnz .table
    pop edi
    ret

; Map the one page at virtual EAX to ECX (a frame and its flags), making the table if there is none. EDI = directory.
; Keeps EDI. The TLB needs no flush: the processor never remembers that a page was absent.
map_page:
    mov edx, eax
    shr edx, 22
    lea edx, [edi + edx*4]
    test dword ptr [edx], PRESENT
    jnz .have_table
    push eax
    call new_frame
    or eax, USER_WRITE
    mov [edx], eax
    pop eax
.have_table:
    mov edx, [edx]
    and edx, FRAME
    shr eax, 12
    and eax, 1023
    mov [edx + eax*4], ecx
    ret

; A process's directory, EDI: the kernel's, but with a table of its own for the 4 MiB that this image lies in. There
; the program's own pages will be opened to ring 3, and nobody else's directory shall see that. Keeps EDI.
new_directory:
    push edi
    mov esi, kernel_page_directory
    mov ecx, 1024
    rep movsd
    pop edi
    call new_frame
    push edi
    mov esi, [edi + (HOST_MEMORY >> 22) * 4]
    and esi, FRAME
    lea edx, [eax + USER_WRITE]
    mov [edi + (HOST_MEMORY >> 22) * 4], edx
    mov edi, eax
    mov ecx, 1024
    rep movsd
    pop edi
    mov eax, INFO_PAGE
    mov ecx, shutting_down + USER_READ
    jmp map_page

; A program is one page of code and constants, read-only, and one page of data, each at its physical address: the
; same label serves the kernel, the program, and a debugger.
build_directories:
    mov edi, kernel_page_directory
    mov eax, HOST_MEMORY
    mov ecx, HOST_MEMORY + PRESENT + WRITABLE
    mov edx, 8
    call map_tables

    mov ebp, emulator_process
    call build_emulator_directory

    mov edi, worker_directory
    call new_directory
    mov eax, worker_main
    mov ecx, worker_main + USER_READ
    call map_page
    mov eax, worker_data
    mov ecx, worker_data + USER_WRITE
    call map_page
    jmp add_guests

; The directory of an emulation program, process EBP. All of them have their page of data at the same virtual address,
; so that one page of code serves them all. Keeps EBP.
build_emulator_directory:
    mov edi, [ebp + PROCESS_DIRECTORY]
    call new_directory
    mov eax, emulator_main
    mov ecx, emulator_main + USER_READ
    call map_page
    mov eax, run_block
    mov ecx, [ebp + PROCESS_RUN_BLOCK]
    or ecx, USER_WRITE
    call map_page
    mov eax, GUEST_MEMORY
    mov ecx, [ebp + PROCESS_MEMORY]
    or ecx, USER_WRITE
    mov edx, [ebp + PROCESS_MEMORY_SIZE]
    add edx, TABLE_SPAN - 1
    shr edx, 22
    call map_tables
    mov eax, POOL_MEMORY
    mov ecx, [ebp + PROCESS_POOL]
    or ecx, USER_WRITE
    mov edx, POOL_SIZE >> 22
    jmp map_tables

; Ring 3 touched the absent page at EAX. Within the heap and stack it gets a fresh page of zeros, and CF = 0 says
; that the instruction may be tried again. CF = 1: it had no business there.
demand_zero:
    cmp eax, HEAP
    jb .refused                         ; CF = 1 already
    cmp eax, STACK_TOP
    cmc
    jc .refused
    mov ecx, eax
    call new_frame
    xchg eax, ecx
    or ecx, USER_WRITE
    mov edi, cr3
    call map_page
    inc dword ptr [page_faults]
    clc
.refused:
    ret

; May the current program do EDX (USER_READ or USER_WRITE) with the ECX bytes at EAX? CF = 1 if not. Every page is
; looked up, since the kernel would be let through by ring 0's rights where the program would not. A heap page that
; the program itself has not touched yet is absent, and refused. Keeps EBX, ECX, EBP.
check_user:
    test ecx, ecx                       ; no bytes, no harm (and CF = 0)
    jz .done
    push ecx
    add ecx, eax
    jc .bad                             ; around the end of memory
    dec ecx                             ; the last byte
    and eax, FRAME
.page:
    mov edi, cr3
    mov esi, eax
    shr esi, 22
    mov esi, [edi + esi*4]
    mov edi, esi
    and edi, edx
    cmp edi, edx
    jne .bad
    and esi, FRAME
    mov edi, eax
    shr edi, 12
    and edi, 1023
    mov edi, [esi + edi*4]
    and edi, edx
    cmp edi, edx
    jne .bad
    add eax, PAGE_SIZE
    cmp eax, ecx
    jbe .page
    clc
    pop ecx
.done:
    ret
.bad:
    stc
    pop ecx
    ret

next_frame: .long FIRST_FRAME

.align PAGE_SIZE
kernel_page_directory: .space PAGE_SIZE             ; the idle process's
emulator_directory:    .space PAGE_SIZE
worker_directory:      .space PAGE_SIZE
