; From 32-bit protected mode into long mode, with page tables that say what may be written and what may be executed.

.equ KERNEL_CODE, 0x08
.equ KERNEL_DATA, 0x10
.equ USER_CODE32, 0x1b              ; SYSRET takes this one from STAR; 64-bit code is 16 bytes on, data 8
.equ USER_DATA, 0x23
.equ USER_CODE, 0x2b
.equ TSS_SELECTOR, 0x30

.equ HIGH, 0xffffffff80000000       ; the kernel's second place: the last 2 GiB, that 32-bit offsets reach
.equ DEMAND_BASE, 0x40000000        ; 2 MiB of addresses that get their memory when they are touched
.equ DEMAND_SIZE, 0x00200000

.equ PRESENT, 0x01                  ; bits of an entry
.equ WRITABLE, 0x02
.equ USER, 0x04
.equ ACCESSED, 0x20
.equ DIRTY, 0x40
.equ LARGE, 0x80                    ; 2 MiB in a directory, 1 GiB one level higher
.equ NX, 1 << 63
.equ NX_HIGH, 0x80000000            ; the same in the upper half of an entry

.equ CR0_PROTECTION, 0x00000001
.equ CR0_WRITE_PROTECT, 0x00010000  ; read-only holds for the kernel as well
.equ CR0_PAGING, 0x80000000
.equ CR4_PAE, 0x20
.equ CR4_OSFXSR, 0x200
.equ EFER, 0xc0000080
.equ EFER_OURS, 0x901               ; NXE, LME, SCE
.equ EFER_LMA, 0x400                ; the processor's answer

.code32
start:
    cli
    cld
    mov esp, stack_top
    mov eax, multiboot_header       ; our code: read-only, and the only pages that may be executed
.code_page:
    mov edx, eax
    shr edx, 12
    and dword ptr [low_table + edx * 8], ~WRITABLE
    and dword ptr [low_table + edx * 8 + 4], ~NX_HIGH
    add eax, 0x1000
    cmp eax, user_program_end
    jb .code_page
    mov eax, user_program           ; the program's code and its strings: for programs, too
.program_page:
    mov edx, eax
    shr edx, 12
    or dword ptr [low_table + edx * 8], USER
    add eax, 0x1000
    cmp eax, user_program_end
    jb .program_page
    mov edx, user_stack             ; and one page of stack
    shr edx, 12
    or dword ptr [low_table + edx * 8], USER

    mov eax, cr4                    ; in the order of the SDM (vol. 3, 10.8.5)
    or eax, CR4_PAE + CR4_OSFXSR
    mov cr4, eax
    mov eax, pml4
    mov cr3, eax
    mov ecx, EFER
    rdmsr
    or eax, EFER_OURS
    wrmsr
    mov eax, cr0
    or eax, CR0_PAGING + CR0_WRITE_PROTECT
    mov cr0, eax                    ; from here on in compatibility mode
    lgdt [gdt_pointer]
    jmp KERNEL_CODE:main            ; and by this code segment's L bit in 64-bit mode
