; a file system on an IDE disk: APICs by the MP table, paging, interrupt-driven reads, writes and reads again
;
; Started by a multiboot loader, it finds the APICs by the MultiProcessor table, has them deliver what the 8259s did,
; calibrates the local APIC's timer against the 8254, switches paging on, and works on the first disk: it mounts the
; file system there, checks every file, prints the first one, creates a new one, throws its cache away, and reads back
; what is really on the disk. The end is by the debug exit port, with 0 if all is well and 1 at the first failure.
;
;     python tools/make_filesystem.py disk.img
;     hvproto boot guests/boot/filesystem.asm --disk disk.img --write-disk
;
; The file system (all numbers little endian, blocks of 512 bytes):
;   block 0        super block: "SMALLFS1"; then 32-bit words: number of blocks; first block and number of blocks of the
;                  bitmap; the same of the directory; first data block; number of mounts; a word that makes all 128
;                  words of the block add up to 0
;   bitmap         one block; bit n (of byte n / 8, from the lowest up) is set if block n is in use
;   directory      entries of 64 bytes: name, 24 bytes filled up with 0 (first byte 0: entry free); size in bytes;
;                  checksum; eight block numbers, 0 where the file has ended
;   checksum       of a file: from 0 on, for each byte, rotate 32 bits to the left by one and add the byte

.origin 0x100000
.entry start
.include "common/multiboot.asm"
.include "common/print.asm"         ; macros come before their use
.include "common/tables.asm"
.include "common/serial.asm"

.macro FAIL text                    ; never returns
    SAY \text
    jmp failed
.endm

start:
    cld
    mov esp, stack_end
    call load_tables
    call start_serial
    call find_mp_table
    jnc .mp_found
    FAIL "there is no MP table"
.mp_found:
    call parse_mp_table
    call start_paging
    call mask_pics
    call start_local_apic
    call start_io_apic
    call route_interrupts
    call start_apic_timer
    call start_ide
    jnc .disk_found
    FAIL "disk 0 does not answer"
.disk_found:
    call mount
    call check_files
    call print_first_file
    call write_new_file
    call drop_cache
    SAY "filesystem: cache dropped\n"
    call read_new_file
    call report_and_end

put_character:                      ; AL; keeps all registers
    jmp send_serial

failed:
    SAY "\nfilesystem: FAILED\n"
    mov al, 1
    jmp exit

disk_failed:
    FAIL "disk error"

.include "filesystem/mp_table.asm"
.include "filesystem/paging.asm"
.include "filesystem/local_apic.asm"
.include "filesystem/io_apic.asm"
.include "filesystem/handlers.asm"
.include "filesystem/ide.asm"
.include "filesystem/cache.asm"
.include "filesystem/volume.asm"
.include "filesystem/directory.asm"
.include "filesystem/files.asm"
.include "filesystem/story.asm"

.align 16
    .space 8192
stack_end:
.align 4096
page_directory: .space 4096
page_tables: .space 4096 * PAGE_TABLES
image_end:
