; Paging: the first 4 MiB one to one, without page 0, and the APICs' pages uncached (Intel SDM vol. 3, 4.3).

.equ PAGE_TABLES, 3                 ; the first 4 MiB, and one for each APIC should they be far apart
.equ PRESENT, 0x01
.equ WRITABLE, 0x02
.equ WRITE_THROUGH, 0x08
.equ CACHE_DISABLED, 0x10
.equ UNCACHED, PRESENT | WRITABLE | WRITE_THROUGH | CACHE_DISABLED

start_paging:
    mov ebx, 0x1000                 ; not page 0: a null pointer shall fault
.page:
    mov eax, PRESENT | WRITABLE
    call map_page
    add ebx, 0x1000
    cmp ebx, 0x400000
    jb .page
    mov eax, UNCACHED
    mov ebx, [local_apic]
    call map_page
    mov ebx, [io_apic]
    call map_page
    mov eax, page_directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000              ; PG and WP
    mov cr0, eax
    SAY "filesystem: paging is on\n"
    ret

map_page:                           ; the page of EBX, one to one, with the bits in EAX; keeps all registers
    pushad
    mov esi, eax
    mov edi, ebx
    shr edi, 22
    mov ecx, [page_directory + edi * 4]
    test ecx, ecx
    jnz .there
    mov ecx, [next_table]
    add dword ptr [next_table], 0x1000
    or ecx, PRESENT | WRITABLE
    mov [page_directory + edi * 4], ecx
.there:
    and ecx, 0xfffff000
    mov eax, ebx
    and eax, 0xfffff000
    or eax, esi
    shr ebx, 12
    and ebx, 0x3ff
    mov [ecx + ebx * 4], eax
    popad
    ret

.align 4
next_table: .long page_tables
