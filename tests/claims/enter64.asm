; From the multiboot loader's protected mode into 64-bit code at `long`. EAX = the root. The including kernel has `gdt`
; with the 64-bit code segment at CODE64, and turns on what else it wants of CR4 before.

CODE64 = 0x08
DATA   = 0x10
NX     = 1 << 63
LARGE  = 0x80
EFER   = 0xc0000080

.code32
enter_long_mode:
    mov cr3, eax
    mov eax, cr4
    or eax, 0x220                       ; PAE, and OSFXSR for SSE
    mov cr4, eax
    mov ecx, EFER
    rdmsr
    or eax, 0x901                       ; NXE, LME, SCE
    wrmsr
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    lgdt [gdt_pointer]
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    jmp CODE64:long
.code64
