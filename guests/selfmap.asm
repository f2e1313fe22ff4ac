; a page directory whose last entry maps the directory itself: its page tables are memory at 0xffc00000
;
; The directory is then used as a page table too, for the last 4 MiB of addresses: each of its entries shows up there as
; a page. So page table n is at 0xffc00000 + n * 4096, the entry of address a at 0xffc00000 + (a >> 12) * 4, and the
; directory, which is the table of the last 4 MiB, at 0xfffff000. A store there changes what stores everywhere do.

.origin 0x100000
.entry start

.include "guest/multiboot.asm"
.include "guest/console.asm"

.equ TABLES, 0xffc00000
.equ DIRECTORY, 0xfffff000
.equ NEW, 0x40000000                ; the address that we map
.equ NEW_TABLE, TABLES + (NEW >> 12) * 4
.equ FRAME_A, 0x00300000
.equ FRAME_B, 0x00301000
.equ ADDRESS_BITS, 0xfffff000       ; without accessed and dirty, which the processor sets

.macro compare name, expected
    mov esi, \name
    mov edx, \expected
    call check
    say new_line
.endm

start:
    cli
    cld
    mov esp, stack_top
    call console_initialise

    mov edi, low_table              ; the first 4 MiB one to one
    mov eax, 3
    mov ecx, 1024
.page:
    stosd
    add eax, 0x1000
    loop .page
    mov dword ptr [directory], low_table + 3
    mov dword ptr [directory + 1023 * 4], directory + 3
    mov eax, directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax

    mov eax, dword ptr [DIRECTORY + 1023 * 4]
    and eax, ADDRESS_BITS
    compare text_self, directory
    mov eax, dword ptr [TABLES + (FRAME_A >> 12) * 4]
    and eax, ADDRESS_BITS
    compare text_entry, FRAME_A

    mov dword ptr [FRAME_A], 0xaaaaaaaa
    mov dword ptr [FRAME_B], 0xbbbbbbbb
    mov dword ptr [DIRECTORY + (NEW >> 22) * 4], new_table + 3  ; a new table: at once it appears at its place
    invlpg [NEW_TABLE]
    mov dword ptr [NEW_TABLE], FRAME_A + 3
    mov eax, dword ptr [NEW]
    compare text_mapped, 0xaaaaaaaa
    mov dword ptr [NEW_TABLE], FRAME_B + 3
    invlpg [NEW]
    mov eax, dword ptr [NEW]
    compare text_remapped, 0xbbbbbbbb
    mov eax, dword ptr [new_table]  ; the same entry, seen where it lies: used, never written through
    and eax, 0x60
    compare text_accessed, 0x20
    mov dword ptr [NEW], 0xcccccccc
    mov eax, dword ptr [NEW_TABLE]
    and eax, 0x60
    compare text_dirty, 0x60
    mov eax, dword ptr [FRAME_B]
    compare text_written, 0xcccccccc

    mov dword ptr [low_table + (FRAME_A >> 12) * 4], FRAME_B + 3    ; the other way round: edited where it lies
    invlpg [FRAME_A]
    mov eax, dword ptr [TABLES + (FRAME_A >> 12) * 4]               ; seen through the window
    and eax, ADDRESS_BITS
    compare text_window, FRAME_B
    mov eax, dword ptr [FRAME_A]
    compare text_moved, 0xcccccccc

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

text_self: .asciz "selfmap: the directory finds itself"
text_entry: .asciz "selfmap: an entry through the window"
text_mapped: .asciz "selfmap: a page mapped through the window"
text_remapped: .asciz "selfmap: the page changed through the window"
text_accessed: .asciz "selfmap: read, so accessed"
text_dirty: .asciz "selfmap: written, so dirty"
text_written: .asciz "selfmap: the store arrived"
text_window: .asciz "selfmap: an entry changed where it lies"
text_moved: .asciz "selfmap: the page behind it"
text_done: .asciz "selfmap: done\n"
new_line: .asciz "\n"

.align 4096
directory: .space 4096
low_table: .space 4096
new_table: .space 4096
    .space 4096
stack_top:
image_end:
