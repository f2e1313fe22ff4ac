"""The processor's rarer mechanisms, one small guest for each: under the bundled host, in both plans, as alone.

The guest's exit status is a byte that only the mechanism could have brought it.
"""

from __future__ import annotations

import pytest
from unicorn.x86_const import UC_X86_REG_DR7 as DR7

from hvproto.machine.ram import MIB
from tests.hypervisor.hosted import Run, kernel
from tests.hypervisor.stage import bare

TABLES = """
    .align 8
    gdt:
        .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0
        .quad 0x0000820010000fff            ; 0x20: LDT at 0x1000
        .quad 0x00008c0000080000            ; 0x28: call gate to 0x08:0, for `start` to complete
        .quad 0x00af9b000000ffff            ; 0x30: 64-bit code
        .quad 0x0000890040000067            ; 0x38: TSS at 0x4000
        .quad 0x0000890050000067            ; 0x40: TSS at 0x5000
        .quad 0x00009b000000ffff            ; 0x48: 16-bit code
    pointer:
        .word pointer - gdt - 1
        .long gdt
    idt_pointer:
        .word 0x7ff
        .long 0x3000
"""
PRELUDE = """
    lgdt [pointer]
    jmp 0x08:1f
1:  mov eax, 0x10
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov dword ptr [0x2004], 0x37            ; a byte to be found by a segment with base 0x2000
"""
GATE = """
    lidt [idt_pointer]
    mov eax, {handler}
    mov [0x3000 + {vector} * 8], eax
    mov word ptr [0x3002 + {vector} * 8], 8
    mov word ptr [0x3004 + {vector} * 8], 0x8e00
    shr eax, 16
    mov [0x3006 + {vector} * 8], ax
"""
EXIT = "out 0xf4, al\n1: jmp 1b\n"

BODIES = {
    "a segment of an LDT": """
        mov dword ptr [0x1008], 0x2000ffff  ; 0x0c: data at 0x2000
        mov dword ptr [0x100c], 0x00cf9300
        mov eax, 0x20
        lldt ax
        mov eax, 0x0c
        mov fs, eax
        mov al, fs:[4]
    """,
    "a breakpoint in DR0": GATE.format(handler="handler", vector=1) + """
        mov eax, offset here
        mov dr0, eax
        mov eax, 2
        mov dr7, eax
        xor ebx, ebx
        inc ebx
    here:
        inc ebx
        mov al, 0xff
        out 0xf4, al
    handler:
        mov eax, dr6
        and al, 0x0f                        ; B0
        shl al, 4
        or al, bl                           ; 1: `here` hasn't been executed
    """,
    "a data breakpoint": GATE.format(handler="handler", vector=1) + """
        mov eax, 0x2004
        mov dr1, eax
        mov eax, 0x00d00008                 ; DR1, writes of 4 bytes
        mov dr7, eax
        mov eax, [0x2004]
        mov dword ptr [0x2006], 0x00050000  ; touches what is watched
        mov al, 0xff
        out 0xf4, al
    handler:
        mov eax, dr6
        and al, 0x0f                        ; B1
        or al, byte ptr [0x2008]
    """,
    "out of protected mode": """
        mov eax, cr0
        and eax, -2
        mov cr0, eax
        mov ax, 0x200
        mov ds, ax                          ; a paragraph: base 0x2000
        mov al, [4]
    """,
    "into real mode and back": """
        mov esi, real
        mov edi, 0x2800
        mov ecx, real_end - real
        rep movsb
        jmp 0x48:0x2800
    .code16
    real:
        mov eax, cr0
        and al, 0xfe
        mov cr0, eax
        jmp 0x280:entry - real
    entry:
        mov ax, 0x200
        mov ds, ax
        mov bl, [4]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 0x08:protected
    real_end:
    .code32
    protected:
        mov eax, 0x10
        mov ds, eax
        mov al, bl
    """,
    "into long mode": """
        mov dword ptr [0x200000], 0x201003
        mov dword ptr [0x201000], 0x202003
        mov dword ptr [0x202000], 0x83
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, 0x200000
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        jmp 0x30:wide
    .code64
    wide:
        mov rax, 0x3700000000000000
        mov r15, rax
        shr r15, 56
        mov eax, r15d
    """,
    "virtual-8086 mode": GATE.format(handler="handler", vector=13) + """
        mov dword ptr [0x4004], 0x170000    ; the stack of ring 0
        mov dword ptr [0x4008], 0x10
        mov dword ptr [0x4064], 0x680000
        mov eax, 0x38
        ltr ax
        mov dword ptr [0x2900], 0xf41ed88e  ; mov ds, ax; push ds; hlt
        push 0
        push 0
        push 0
        push 0
        push 0x280
        push 0xfe
        push 0x20002
        push 0x290
        push 0
        mov eax, 0x1234
        iret
    handler:
        mov eax, [esp + 12]                 ; EFLAGS
        shr eax, 17
        and al, 1                           ; VM
        add al, byte ptr [0x2800 + 0xfc]    ; what was pushed: 0x34
    """,
    "a call gate": """
        mov eax, target
        mov [gdt + 0x28], ax
        shr eax, 16
        mov [gdt + 0x2e], ax
        lgdt [pointer]
        mov al, 0x30
        call 0x28:0
        jmp exit
    target:
        add al, 7
        retf
    exit:
    """,
    "a task switch and back": """
        mov eax, 0x38
        ltr ax
        mov dword ptr [0x5020], task        ; EIP
        mov dword ptr [0x5024], 2
        mov dword ptr [0x5028], 0x30        ; EAX
        mov dword ptr [0x5038], 0x160000    ; ESP
        mov dword ptr [0x5048], 0x10
        mov dword ptr [0x504c], 8
        mov dword ptr [0x5050], 0x10
        mov dword ptr [0x5054], 0x10
        mov bl, 7
        call 0x40:0
        mov al, [0x2004]
        add al, bl
        jmp exit
    task:
        mov byte ptr [0x2004], al
        mov bl, 0xff                        ; this task's own
        iret
    exit:
    """,
}  # fmt: skip
RESULTS = {"a breakpoint in DR0": 0x11, "a data breakpoint": 0x07, "virtual-8086 mode": 0x35}
USUAL = 0x37


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
@pytest.mark.parametrize("name", BODIES)
def test_a_guest_has_it(name: str, plan: str) -> None:
    image = kernel(PRELUDE + BODIES[name] + EXIT + TABLES)
    expected = 2 * RESULTS.get(name, USUAL) + 1
    alone = bare(image, memory=16 * MIB, limit=1_000_000)
    assert (alone.status, alone.error) == (expected, None)
    run = Run(image, plan)
    assert (run.status, run.error) == (expected, None)
    run.check_the_host_ended_well()
    assert not run.session.machine.processor.engine.uc.reg_read(DR7) & 0xFF, "the guest's breakpoints stayed behind"
