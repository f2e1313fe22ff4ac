; Offsets in a 32-bit task state segment (SDM vol. 3, figure 8-2).

.equ TSS_LINK, 0x00
.equ TSS_ESP0, 0x04
.equ TSS_SS0, 0x08
.equ TSS_CR3, 0x1c
.equ TSS_EIP, 0x20
.equ TSS_EFLAGS, 0x24
.equ TSS_EAX, 0x28
.equ TSS_ECX, 0x2c
.equ TSS_ESP, 0x38
.equ TSS_ES, 0x48
.equ TSS_CS, 0x4c
.equ TSS_SS, 0x50
.equ TSS_DS, 0x54
.equ TSS_FS, 0x58
.equ TSS_LDT, 0x60
.equ TSS_IO_MAP, 0x66
.equ TSS_SIZE, 0x68

.macro TSS_DESCRIPTOR base, limit, access
    .word \limit, (\base) & 0xffff
    .byte ((\base) >> 16) & 0xff, \access, 0, (\base) >> 24
.endm

.macro NEW_TASK eip, esp, code, data                ; a TSS ready to run, interrupts off
    .long 0, 0, 0, 0, 0, 0, 0, 0
    .long \eip, 2, 0, 0, 0, 0, \esp, 0, 0, 0
    .long \data, \code, \data, \data, 0, 0, 0
    .long TSS_SIZE << 16            ; no I/O map
.endm
