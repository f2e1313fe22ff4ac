"""What surrounds the body of a small kernel, so that it begins in the wanted mode (Intel SDM vol. 3, 9.8 and 4.1.2)."""

from __future__ import annotations

from hvproto.errors import BadInput

MODES = ("none", "2-level", "pse", "pae", "4-level")
"""Of paging; "none" is off. 64-bit code has 4-level paging; with 32-bit code that is compatibility mode."""

TABLES = 0x180000
"""GPA of the root, in 32-bit paging of the page table behind it; the tables end at 0x186000."""

_CLEAR = f"""
    mov edi, {TABLES:#x}
    xor eax, eax
    mov ecx, 0x1800
    rep stosd
"""
_LOAD = f"""
    mov eax, {TABLES:#x}
    mov cr3, eax
"""
_ON = """
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""


def _cr4(bit: int) -> str:
    return f"    mov eax, cr4\n    or eax, {bit:#x}\n    mov cr4, eax\n"


def _entries(place: int, first: int, step: int, count: int) -> str:
    """So many entries in a row; a step of 0 for single ones."""
    return "".join(f"    mov dword ptr [{place + 8 * i:#x}], {first + step * i:#x}\n" for i in range(count))


_TABLES = {
    "2-level": f"""{_CLEAR}
    mov dword ptr [{TABLES:#x}], {TABLES + 0x1000 | 7:#x}
    mov edi, {TABLES + 0x1000:#x}
    mov eax, 7
    mov ecx, 1024
hvproto_fill: stosd
    add eax, 0x1000
    dec ecx
    jnz hvproto_fill
""",
    "pse": f"{_CLEAR}    mov dword ptr [{TABLES:#x}], 0x87\n" + _cr4(0x10),
    "pae": _CLEAR
    + _entries(TABLES, TABLES + 0x1000 | 1, 0, 1)
    + _entries(TABLES + 0x1000, 0x87, 0x200000, 2)
    + _cr4(0x20),
    "4-level": _CLEAR
    + _entries(TABLES, TABLES + 0x1000 | 7, 0, 1)
    + _entries(TABLES + 0x1000, TABLES + 0x2000 | 7, 0, 1)
    + _entries(TABLES + 0x2000, 0x87, 0x200000, 2)
    + _cr4(0x20)
    + "    mov ecx, 0xc0000080\n    rdmsr\n    or eax, 0x100\n    wrmsr\n",
}


def is_possible(bits: int, paging: str | None) -> bool:
    """Whether there is such a mode.

    >>> is_possible(64, "pae"), is_possible(64, None), is_possible(32, "4-level")
    (False, True, True)
    """
    return bits == 32 or paging in (None, "4-level")


def surround(bits: int, paging: str | None) -> str:
    """Assembly that comes behind a body labelled ``hvproto_body``: it is entered first, and goes there.

    Raises BadInput for a mode that there isn't.
    """
    if bits not in (32, 64) or paging not in (None, *MODES) or not is_possible(bits, paging):
        raise BadInput(f"no such mode: {bits} bits, paging {paging}; paging is one of {', '.join(MODES)}")
    if bits == 64:
        paging = "4-level"
    enter = "" if paging in (None, "none") else _TABLES[paging or ""] + _LOAD + _ON
    code = 0x00AF9B000000FFFF if bits == 64 else 0x00CF9B000000FFFF
    stack = "    mov rsp, 0x180000\n" if bits == 64 else ""
    return f"""
.code32
.entry hvproto_enter
hvproto_enter:
    cli
    lgdt [hvproto_gdt_pointer]
{enter}    jmp 0x08:hvproto_segments
.code{bits}
hvproto_segments:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, 0x180000
{stack}    jmp hvproto_body
.align 8
hvproto_gdt: .quad 0, {code:#018x}, 0x00cf93000000ffff
hvproto_gdt_pointer: .word 23
    .long hvproto_gdt
"""
