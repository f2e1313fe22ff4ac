"""Small kernels for measuring, 32 bits: paging on or off, a program at ring 3 or none, and a body that is counted.

Each ends by a store to the debug exit port. Their data pages are pages of their own, so that no store hits code.
"""

from __future__ import annotations

from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image

PAGES = 0x40_0000
"""Where the memory that a body may use begins: 4 MiB of it."""
MEMORY = 16 << 20

_PAGING = """
    mov edi, 0x10000            ; the directory; its tables behind it, for 16 MiB one to one
    mov ecx, 4
    mov eax, 0x11067
directory: mov [edi], eax
    add edi, 4
    add eax, 0x1000
    dec ecx
    jnz directory
    mov edi, 0x11000
    mov eax, FLAGS
    mov ecx, 4096
fill: mov [edi], eax
    add edi, 4
    add eax, 0x1000
    dec ecx
    jnz fill
    mov eax, 0x10000
    mov cr3, eax
    mov eax, 0x80010001
    mov cr0, eax
"""
_KERNEL = """
.origin 0x100000
.entry start
start:
    lgdt [gdtr]
    lidt [idtr]
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    jmp 0x08:reloaded
reloaded:
    mov esp, 0x88000
    mov ax, 0x28
    ltr ax
    mov eax, handler
    mov word ptr [idt + 0x80*8], ax
    shr eax, 16
    mov word ptr [idt + 0x80*8 + 6], ax
    {paging}
    {body}
done:
    mov al, 0
    out 0xf4, al
    hlt
handler:
    test ebx, ebx
    jnz over
    iretd
over:
    mov al, 0
    out 0xf4, al
    hlt
.align 4096
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .word 0x67, tss & 0xffff
    .byte tss >> 16, 0x89, 0, 0
gdtr: .word gdtr - gdt - 1
    .long gdt
idtr: .word 0x7ff
    .long idt
.align 4096
tss: .long 0, 0x80000, 0x10
    .space 92
.align 4096
idt: .space 0x80 * 8
    .word 0, 8
    .byte 0, 0xee
    .word 0
    .space 0x7ff - 0x81 * 8
"""
_COUNTED = """
    mov ecx, {count}
again:
    {what}
    dec ecx
    jnz again
"""
_PROGRAM = """
    xor ebx, ebx
    mov ax, 0x23
    mov ds, ax
    mov es, ax
    push 0x23
    push 0x90000
    push 2
    push 0x1b
    push user
    iretd
.align 4096
user:
    mov ecx, {count}
calls:
    int 0x80
    dec ecx
    jnz calls
    mov ebx, 1
    int 0x80
"""


def _build(body: str, *, paging: bool, flags: int = 0x67) -> Image:
    switched = _PAGING.replace("FLAGS", hex(flags)) if paging else ""
    return assemble_text(_KERNEL.format(paging=switched, body=body), "<bench>")


def counted(what: str, count: int, *, paging: bool = True) -> Image:
    """A kernel that does something so often, with ECX as its counter."""
    return _build(_COUNTED.format(what=what, count=count), paging=paging)


def system_calls(count: int) -> Image:
    """A program at ring 3 that calls its kernel by INT 0x80 so often, and a handler that returns at once."""
    return _build(_PROGRAM.format(count=count), paging=True)


def first_touches(count: int) -> Image:
    """Pages whose A bits are clear are read, one after the other: only a mirror lacks them."""
    body = f"mov esi, {PAGES:#x}\n" + _COUNTED.format(what="mov eax, [esi]\nadd esi, 0x1000", count=count)
    return _build(body, paging=True, flags=0x7)


def table_writes(count: int, *, used: bool) -> Image:
    """``count`` stores to page tables: to one entry after the other of four tables at 0x200000, which map what isn't
    used, over and over again.

    ``used``: to one entry only, present and accessed, so that each store has to be followed at once.
    """
    setup = "mov dword ptr [0x10010], 0x200067\nmov dword ptr [0x10014], 0x201067\nmov dword ptr [0x10018], 0x202067\n"
    setup += "".join(f"mov dword ptr [{0x10000 + 4 * n:#x}], {0x200067 + (n - 4) * 0x1000:#x}\n" for n in range(7, 16))
    setup += "mov eax, cr3\nmov cr3, eax\nmov edi, 0x200000\nmov eax, 0x400067\n"
    what = "mov [edi], eax\nxor eax, 0x1000"
    if not used:
        what = "mov [edi], eax\nadd edi, 4\nand edi, 0x203fff\nadd eax, 0x1000\nand eax, 0x7fffff"
        setup = setup.replace("0x400067", "0x400007")
    return _build(setup + _COUNTED.format(what=what, count=count), paging=True)


LOADS = {
    "ALU loop": ("add eax, ecx\nxor edx, eax\nrol eax, 3\nlea esi, [eax + edx*2]", 8_000_000),
    "memcpy": (
        # 0x190 pages apart: a multiple of 256 would have both sides share their entries of the engine's TLB.
        "push ecx\nmov esi, 0x410000\nmov edi, 0x5a0000\nmov ecx, 0x4000\n"
        "copy: mov eax, [esi]\nmov [edi], eax\nadd esi, 4\nadd edi, 4\ndec ecx\njnz copy\npop ecx", 160,
    ),
    "calls": (
        "call function\njmp next\nfunction: push ebp\nmov ebp, esp\npush eax\npop eax\npop ebp\nret\nnext:", 2_000_000,
    ),
    "sieve": (
        "push ecx\nmov ecx, 2\nnumbers: mov esi, ecx\nadd esi, ecx\nstrike: mov byte ptr [esi + 0x400000], 1\n"
        "add esi, ecx\ncmp esi, 200000\njb strike\ninc ecx\ncmp ecx, 450\njb numbers\npop ecx", 8,
    ),
}  # fmt: skip
"""Code to be repeated by name, and how often for some tens of milliseconds on plain Unicorn."""
