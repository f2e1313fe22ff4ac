; What a multiboot 1 loader looks for in the first 8 KiB of an image. Bit 16 of the flags (the "a.out kludge") says
; that the addresses below are to be used, so that a flat binary will do: this very image also boots on other machines.
; The loader enters `start` in flat 32-bit protected mode, paging off, interrupts off, EAX = 0x2badb002.

.equ MULTIBOOT_MAGIC, 0x1badb002
.equ MULTIBOOT_FLAGS, 0x00010000

.align 4
multiboot_header:
    .long MULTIBOOT_MAGIC
    .long MULTIBOOT_FLAGS
    .long 0 - MULTIBOOT_MAGIC - MULTIBOOT_FLAGS     ; the three add up to 0
    .long multiboot_header      ; where this header is to be
    .long multiboot_header      ; where the image begins: the header is the first thing in it
    .long 0                     ; where it ends: load the whole file
    .long image_end             ; what to clear and keep after it: up to the label at the end of the kernel
    .long start                 ; where to enter it
