"""INT n, IRET, PUSHF, POPF and hidden page faults done in the engine's run, against each as an exit of its own.

What a known transfer depends on - gate, stack in the TSS, where they lie, who watches the stack - changes at random
between one call and the next.
"""

from __future__ import annotations

import random

import pytest

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.processor import private_layout
from tests.hypervisor.test_quick_exits import check_alike
from tests.support.beginnings import FLAT

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

# A program at ring 3 calls its kernel by INT 80h with an action's number in EAX; handler and other handler write down
# what they find on their stack, in a log at 0x600000, and do what the action says. 16 MiB are mapped one to one.
_KERNEL = """
.origin 0x100000
.entry start
start:
{flat}
    mov esp, 0x88000
    mov ax, 0x28
    ltr ax
    mov edi, 0x10000
    mov ecx, 4
    mov eax, 0x11067
directory: mov [edi], eax
    add edi, 4
    add eax, 0x1000
    loop directory
    mov edi, 0x11000
    mov eax, 7
    mov ecx, 4096
fill: mov [edi], eax
    add edi, 4
    add eax, 0x1000
    loop fill
    mov dword ptr [0x11000 + 0x47d*4], 0x477067
    mov eax, 0x10000
    mov cr3, eax
    mov eax, 0x80010001
    mov cr0, eax
    mov ebp, 0x600000
    xor ebx, ebx
    mov ax, 0x23
    mov ds, ax
    mov es, ax
    push 0x23
    push 0x90000
    push {flags:#x}
    push 0x1b
    push user
    iretd
handler:
    mov edx, 1
    jmp common
other:
    mov edx, 2
    pushfd
    popfd
common:
    pushfd
    pop ecx
    mov [ebp], edx
    mov [ebp + 4], ecx
    mov [ebp + 8], esp
    mov ecx, [esp]
    mov [ebp + 12], ecx
    mov ecx, [esp + 8]
    mov [ebp + 16], ecx
    mov ecx, [esp + 12]
    mov [ebp + 20], ecx
    add ebp, 24
    jmp [actions + eax*4]
.align 4
actions: .long nothing, gate, back, stack, stack2, closed, inner, remap, unmap, clear, watch, iopl, touch, wide, frame, end
    .long task, loads, closes, looks, both, flags
nothing: iretd
gate: mov eax, other
    jmp set_gate
back: mov eax, handler
set_gate: mov word ptr [idt + 0x80*8], ax
    shr eax, 16
    mov word ptr [idt + 0x80*8 + 6], ax
    iretd
stack: mov dword ptr [tss + 4], 0x480000
    iretd
stack2: mov dword ptr [tss + 4], 0x47f008
    iretd
closed: xor byte ptr [idt + 0x80*8 + 5], 1      ; a trap gate instead, or back
    iretd
inner: xor eax, eax                             ; a call from ring 0
    int 0x80
    iretd
remap: mov ecx, 1024                            ; the stack's page, and what is in it, to be found elsewhere
copy: mov edx, [0x47f000 + ecx*4 - 4]
    mov [0x47d000 + ecx*4 - 4], edx
    loop copy
    xor dword ptr [0x11000 + 0x47f*4], 0x8000
    xor dword ptr [0x11000 + 0x47d*4], 0x8000
    iretd
unmap: and dword ptr [0x11000 + 0x47e*4], ~0x20  ; A and D of the stack's pages clear again
    and dword ptr [0x11000 + 0x47f*4], ~0x60
    invlpg [0x47e000]
    invlpg [0x47f000]
    iretd
clear: and dword ptr [0x11000 + 0x500*4], ~0x60
    invlpg [0x500000]
    mov ecx, [0x500000]
    mov [0x500008], ecx
    iretd
watch: mov byte ptr [0x47f100], 0xc3             ; the stack's page is executed, so stores to it are heard of
    mov ecx, 0x47f100
    call ecx
    iretd
iopl: xor dword ptr [esp + 8], 0x3000
    iretd
touch: inc dword ptr [0x700000]
    mov ecx, [0x700000]
    shl ecx, 12
    add ecx, 0x710000
    mov [ecx], ecx
    mov edx, [ecx + 0x10000]
    iretd
wide: mov dx, 0x10
    mov es, dx                                  ; closed by the return
    iretd
task: mov word ptr [gdt + 0x28], 0x67            ; the TSS's descriptor anew, piece by piece, for a while no TSS's
    mov byte ptr [gdt + 0x28 + 5], 0x99
    mov eax, offset tss
    mov [gdt + 0x28 + 2], ax
    shr eax, 16
    mov [gdt + 0x28 + 4], al
    pushfd
    pop ecx
    mov byte ptr [gdt + 0x28 + 6], 0x40
    and byte ptr [gdt + 0x28 + 5], 0xef
    mov dx, 0x28
    ltr dx
    iretd
loads: mov dx, 0x10
    mov fs, dx
    push 0x23
    pop gs
    push es
    mov edx, 0x33
    mov es, edx
    pop es
    mov dx, fs
    mov [ebp], dx
    mov [ebp + 2], gs
    add ebp, 4
    iretd
closes: xor byte ptr [gdt + 0x30 + 5], 0x60      ; another DPL: 3, or 0 again
    mov edx, 0x33
    mov es, edx                                 ; a fault, or not
    push ds
    pop es
    pushfd
    popfd
    mov edx, 0x30
    mov fs, edx
    xor edx, edx
    mov fs, edx
    iretd
looks: xor byte ptr [gdt + 0x30 + 5], 0x02       ; to be written to, or not
    mov ecx, 0x30
    lar edx, ecx
    mov [ebp], edx
    setz byte ptr [ebp + 4]
    verw cx
    setz byte ptr [ebp + 5]
    add ebp, 6
    iretd
both: and dword ptr [0x11000 + 0x500*4], ~0x60   ; read and written by one instruction, where A and D are clear
    invlpg [0x500000]
    lock xadd [0x500010], edx
    mov ecx, 0x500020
    and dword ptr [0x11000 + 0x500*4], ~0x40
    invlpg [ecx]
    sub dword ptr [ecx], 3
    iretd
flags: pushfd
    pop ecx
    xor ecx, 0x2400d5
    push ecx
    popfd
    pushfd
    pop dword ptr [ebp]
    add ebp, 4
    sti
    nop
    cli
    iretd
protection: mov [ebp], esp                      ; a segment can't be loaded: each such instruction has two bytes
    mov ecx, [esp]
    mov [ebp + 4], ecx
    add ebp, 8
    add esp, 4
    add dword ptr [esp], 2
    iretd
frame: lea ecx, [esp + 12]                      ; the caller's stack pointer is PUSHFD, POP EAX, RET
    call ecx
    mov [ebp], eax
    add ebp, 4
    iretd
end:
    mov al, 0
    out 0xf4, al
    hlt
.align 4096
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .word 0x67, tss & 0xffff
    .byte tss >> 16, 0x89, 0, 0
    .quad 0x00cff3000000ffff
gdtr: .word gdtr - gdt - 1
    .long gdt
idtr: .word 0x7ff
    .long idt
.align 4096
tss: .long 0, 0x480000, 0x10
    .space 92
.align 4096
idt: .space 13 * 8
    .word protection & 0xffff, 8
    .byte 0, 0x8e
    .word protection >> 16
    .space (0x80 - 14) * 8
    .word handler & 0xffff, 8
    .byte 0, 0xee
    .word handler >> 16
    .space 0x7ff - 0x81 * 8
.align 4096
user:
{calls}
    mov eax, 15
    int 0x80
"""
_ACTIONS = (*range(14), *range(16, 22))
_LEFT_OUT = ((), (10,), (8, 9, 10, 13))
"""By seed: what makes all later calls plain exits (the stack's page is watched), and what is one itself."""


def program(seed: int, count: int) -> Image:
    """Calls of random actions, each a few times in a row, among flags that are pushed, changed and popped."""
    draw = random.Random(seed)
    lines: list[str] = []
    actions = sorted(set(_ACTIONS).difference(_LEFT_OUT[seed % 3]))
    while len(lines) < count:
        action, times = draw.choice(actions), draw.choice((1, 1, 2, 3, 5))
        label = f"again{len(lines)}"
        lines += [f"mov esi, {times}", f"{label}: mov eax, {action}", "int 0x80", "mov eax, 0", "int 0x80"]
        if not seed % 3 and draw.random() < 0.1:
            lines += ["mov edi, esp", "mov esp, 0xc3589c", "mov eax, 14", "int 0x80", "mov esp, edi"]
        if draw.random() < 0.4:
            lines += ["pushfd", f"xor dword ptr [esp], {draw.choice((0x200, 0x400, 0x40000, 0x8D5)):#x}", "popfd"]
        if draw.random() < 0.4:
            lines += [draw.choice(("cld", "std", "stc", "sub ecx, 77", "add eax, 0x7fffffff")), "pushfd", "pop edi"]
            lines += ["mov [ebp], edi", "add ebp, 4"]
        lines += ["dec esi", f"jnz {label}"]
    return assemble_text(_KERNEL.format(calls="\n".join(lines), flags=0x3202, flat=FLAT), "<transfers>")


@pytest.mark.parametrize("seed", range(6))
def test_calls_and_returns_among_what_changes_them_are_the_same_as_one_by_one(seed: int) -> None:
    count, found = check_alike(program(seed, 160))
    assert count > 30
    assert found["status"] == (1, ""), found["status"][1]
    assert found["memory"][0x600000:0x600004] != bytes(4), "no call came"
