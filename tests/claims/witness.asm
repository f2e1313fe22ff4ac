
; ------------------------------------------------------------------------------------------------------- the witness
; Grafted onto the bundled host by conftest.py. The kernel's driver calls it just before the door, just behind it, and
; once more after a checkpoint: each time it writes down, by the processor's own instructions, what the processor holds,
; and then provokes an exception and a software interrupt, to see who answers.

WITNESS_PROBE  = 0x30                   ; the vector of int 0x30
WITNESS_WINDOW = 0x40300000             ; guest memory 0x300000, in the emulation program's directory
WITNESS_RECORD = 64
CHECKPOINT     = 0x4858

witness_gates:                          ; the host's own routines for vector 0x30 and for divide errors
    mov edx, 0x8e00
    mov ecx, WITNESS_PROBE
    mov eax, host_probe_entry
    call set_gate
    xor ecx, ecx
    mov eax, host_divide_entry
    jmp set_gate

host_probe_entry:
    inc dword ptr [host_probes]
    iret

host_divide_entry:
    inc dword ptr [host_divides]
    add dword ptr [esp], 2              ; behind the div
    iret

witness:
    pushad
    mov edi, [witness_next]
    sgdt [edi]
    sidt [edi + 8]
    str ax
    mov word ptr [edi + 16], ax
    sldt ax
    mov word ptr [edi + 18], ax
    mov eax, cr0
    mov dword ptr [edi + 20], eax
    mov eax, cr3
    mov dword ptr [edi + 24], eax
    mov eax, cr4
    mov dword ptr [edi + 28], eax
    mov ecx, 0xc0000080                 ; EFER
    rdmsr
    mov dword ptr [edi + 32], eax
    mov dword ptr [edi + 36], edx
witness_probe:
    int WITNESS_PROBE
witness_probed:
    xor ecx, ecx
    xor edx, edx
    mov eax, 1
witness_divide:
    div ecx
witness_divided:
    mov eax, [host_probes]
    mov dword ptr [edi + 40], eax
    mov eax, [host_divides]
    mov dword ptr [edi + 44], eax
    mov eax, [WITNESS_WINDOW]
    mov dword ptr [edi + 48], eax
    mov eax, [ticks]
    mov dword ptr [edi + 52], eax
    add edi, WITNESS_RECORD
    mov [witness_next], edi
    inc dword ptr [witness_count]
    popad
    ret

checkpoint:
    push edx
    mov edx, CHECKPOINT
    out dx, eax
    jmp checkpoint_passed               ; ends the straight run of instructions, as at the door
checkpoint_passed:
    pop edx
    ret

.align 4
host_probes:   .long 0
host_divides:  .long 0
witness_count: .long 0
witness_next:  .long witness_records
.align 64
witness_records: .space 256 * WITNESS_RECORD
