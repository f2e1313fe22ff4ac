; a small guest that tries everything once, and writes down what became of it: divide error, software interrupt, timer,
; a page that only its own table maps, a line on the serial port, a block of the disk
;
; It runs bare and hosted. The tests read its variables from RAM.

.origin 0x100000
.entry start

KERNEL_CODE = 0x08
KERNEL_DATA = 0x10
USER_CODE   = 0x1b
USER_DATA   = 0x23
TASK        = 0x28
WINDOW      = 0x40300000                ; a linear address that the host's own table maps to other memory: see witness.asm
WINDOW_PAGE = 0x00200000                ; what we map there
COM1        = 0x3f8
ATA         = 0x1f0
BLOCK       = 7

.macro gate number, handler, kind
    mov eax, \handler
    mov edi, idt + (\number) * 8
    mov word ptr [edi], ax
    mov word ptr [edi + 2], KERNEL_CODE
    mov word ptr [edi + 4], (\kind) << 8
    shr eax, 16
    mov word ptr [edi + 6], ax
.endm

start:
    cli
    cld
    mov esp, stack_top
    lgdt [gdt_pointer]
    mov eax, KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    jmp KERNEL_CODE:own_segments
own_segments:
    gate 0, divide_entry, 0x8e
    gate 0x20, timer_entry, 0x8e
    gate 0x30, probe_entry, 0xee
    gate 0x31, leave_entry, 0xee
    lidt [idt_pointer]
    mov eax, TASK
    ltr ax

    mov edi, low_table                  ; the first 4 MiB one to one, for everybody
    mov eax, 7
    mov ecx, 1024
.page:
    stosd
    add eax, 0x1000
    loop .page
    mov dword ptr [directory], low_table + 7
    mov dword ptr [directory + (WINDOW >> 22) * 4], window_table + 7
    mov dword ptr [window_table + ((WINDOW >> 12) & 1023) * 4], WINDOW_PAGE + 7
    mov dword ptr [window_table + ((WINDOW >> 12) & 1023) * 4 + 4], WINDOW_PAGE + 0x1000 + 7
    mov dword ptr [WINDOW_PAGE], 0x60e57000
    mov eax, directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    jmp .paging
.paging:
    mov eax, dword ptr [WINDOW]
    mov dword ptr [kernel_window], eax

    push USER_DATA                      ; a program
    push program_stack_top
    push 0x202
    push USER_CODE
    push program
    iret

program:
    mov ax, USER_DATA
    mov ds, ax
    mov es, ax
    xor ecx, ecx
    xor edx, edx
    mov eax, 42
program_divide:
    div ecx
program_divided:
    mov dword ptr [program_eax], eax    ; untouched
program_probe:
    int 0x30
program_probed:
    mov eax, dword ptr [WINDOW]
    mov dword ptr [program_window], eax
    int 0x31                            ; back to the kernel

leave_entry:
    mov ax, KERNEL_DATA
    mov ds, ax
    mov es, ax
    mov esp, stack_top

; What the processor notes in our table: nothing, accessed, dirty.
SECOND = window_table + ((WINDOW >> 12) & 1023) * 4 + 4
bits:
    mov eax, dword ptr [SECOND]
    mov dword ptr [bits_untouched], eax
    mov ebx, dword ptr [WINDOW + 0x1000]
    mov eax, dword ptr [SECOND]
    mov dword ptr [bits_read], eax
    mov dword ptr [WINDOW + 0x1000], 0xd1127000
    mov eax, dword ptr [SECOND]
    mov dword ptr [bits_written], eax
bits_end:

    mov al, 0x11                        ; interrupts: vectors 0x20-0x27, the timer at 4000 a second
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0x2a
    out 0x40, al
    mov al, 0x01
    out 0x40, al
    sti
spin:
    inc dword ptr [spins]
    cmp dword ptr [ticks], 3
    jb spin
spin_end:
    cli
    mov al, 0xff
    out 0x21, al

    mov esi, text
print:
    mov dx, COM1 + 5
    in al, dx
    test al, 0x20
    jz print
    mov dx, COM1
    lodsb
    test al, al
    jz printed
    out dx, al
    jmp print
printed:

    mov dx, ATA + 6
    mov al, 0xe0
    out dx, al
    mov dx, ATA + 2
    mov al, 1
    out dx, al
    inc edx
    mov al, BLOCK
    out dx, al
    inc edx
    mov al, 0
    out dx, al
    inc edx
    out dx, al
    mov dx, ATA + 7
    mov al, 0x20
    out dx, al
busy:
    in al, dx
    test al, 0x80
    jnz busy
    test al, 0x08
    jz stop                             ; no disk: the buffer stays empty
    mov dx, ATA
    mov edi, disk_block
    mov ecx, 256
    rep insw
stop:
    mov dword ptr [finished], 1
    cli
    hlt
    jmp stop

divide_entry:
    inc dword ptr [divides]
    add dword ptr [esp], 2
    iret

divide_end:

divide_other:                           ; nobody's, unless a test has the gate point here
    inc dword ptr [others]
    add dword ptr [esp], 2
    iret

probe_entry:
    inc dword ptr [probes]
    iret

timer_other:                            ; the same
    inc dword ptr [others]

timer_entry:
    inc dword ptr [ticks]
    push eax
    mov al, 0x20
    out 0x20, al
    pop eax
    iret

text: .asciz "probe: I have printed this\n"

.align 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cffb000000ffff
    .quad 0x00cff3000000ffff
    .word 103, tss & 0xffff
    .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
idt_pointer:
    .word 256 * 8 - 1
    .long idt

.align 4096                             ; what is written keeps off the pages that are executed
divides:        .long 0
probes:         .long 0
others:         .long 0
ticks:          .long 0
spins:          .long 0
kernel_window:  .long 0
program_window: .long 0
program_eax:    .long 0
bits_untouched: .long 0
bits_read:      .long 0
bits_written:   .long 0
finished:       .long 0
.align 128
tss:
    .long 0, interrupt_stack_top, KERNEL_DATA
    .space 0x5a
    .word 0x68
.align 8
idt: .space 256 * 8
disk_block: .space 512
.align 4096
directory:    .space 4096
low_table:    .space 4096
window_table: .space 4096
    .space 4096
stack_top:
    .space 4096
interrupt_stack_top:
    .space 4096
program_stack_top:
