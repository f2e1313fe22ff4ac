; What a multiboot 1 loader looks for (Multiboot Specification 0.6.96, 3.1). Flag bit 1 asks for the memory map, bit 16
; says that the addresses below are to be used, so that this image needs no ELF. The loader enters `start` in flat
; 32-bit protected mode, paging off, interrupts off, EAX = 0x2badb002, EBX = the address of its information.

.equ HEADER_MAGIC, 0x1badb002
.equ HEADER_FLAGS, 0x00010002
.equ LOADER_MAGIC, 0x2badb002

.align 4
multiboot_header:
    .long HEADER_MAGIC
    .long HEADER_FLAGS
    .long 0 - HEADER_MAGIC - HEADER_FLAGS           ; the three add up to 0
    .long multiboot_header          ; where this header is to be
    .long multiboot_header          ; where the image begins: the header is the first thing in it
    .long 0                         ; where it ends: load the whole file
    .long image_end                 ; what to keep free after it: nothing
    .long start

; In the loader's information (3.3): `flags` says which of the others there are.
.equ INFO_FLAGS, 0
.equ INFO_COMMAND_LINE, 16          ; flag 2
.equ INFO_MODULE_COUNT, 20          ; flag 3
.equ INFO_MODULES, 24
.equ INFO_MAP_SIZE, 44              ; flag 6
.equ INFO_MAP, 48
.equ HAS_COMMAND_LINE, 1 << 2
.equ HAS_MODULES, 1 << 3
.equ HAS_MAP, 1 << 6
