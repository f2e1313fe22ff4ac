"""The engine's page walk, with a note taken of the A bits that it may set wrongly."""

from __future__ import annotations

from hvproto.processor import private_layout as at
from hvproto.processor.code_pages_thunk import WALK_AND_MARK
from hvproto.processor.control_block import (
    CTL_CR2_BEFORE,
    CTL_ENV,
    CTL_NOT_CANONICAL,
    CTL_RAM,
    CTL_RAM_SIZE,
    CTL_SEEN_CODE,
    CTL_WALK,
    CTL_WALKS,
    WALK_COUNT,
    WALK_LINEAR,
    WALK_MARK,
    WALK_MARKS,
    WALK_RETURN,
    WALK_SIZE,
)
from hvproto.processor.settings import CR4_PAE, CR4_PSE
from hvproto.processor.state import SUMMARY_LONG


def _note(name: str, size: int, *, marks: bool = True) -> str:
    """One step of a walk: RAX is the index into the table at R11, which becomes the next one; ECX the entry's bits."""
    mark = f"""
    test al, 0x20
    jnz {name}_marked
    mov ecx, dword ptr [r10 + {WALK_MARKS}]
    mov qword ptr [r10 + rcx*8 + {WALK_MARK}], r11
    inc dword ptr [r10 + {WALK_MARKS}]
{name}_marked:
"""
    return f"""
    lea r11, [r11 + rax*{size}]
    cmp r11, qword ptr [rbx + {CTL_RAM_SIZE}]
    jae noted
    add r11, qword ptr [rbx + {CTL_RAM}]
    mov {"rax" if size == 8 else "eax"}, {"q" if size == 8 else "d"}word ptr [r11]
    test al, 1
    jz noted
    {mark if marks else ""}
    mov ecx, eax
    mov r11, rax
    shl r11, 12
    shr r11, 24
    shl r11, 12
"""


# The engine sets A in the upper entries of a walk that faults further down, and in all entries of the walk for the read
# of an operand that can't be written then; the processor does not. So what was clear before a walk is noted, and
# cleared again if a page fault is what comes of it.
PAGE_WALK = f"""
    movabs rax, {{control}}
    mov dword ptr [rax + {CTL_NOT_CANONICAL}], 0
    mov qword ptr [rax + {CTL_SEEN_CODE}], 0
    mov r11, qword ptr [rax + {CTL_WALK}]
    add r11, {WALK_SIZE}
    lea r10, [rax + {CTL_WALKS + WALK_COUNT * WALK_SIZE}]
    cmp r11, r10
    jb same_round
    lea r11, [rax + {CTL_WALKS}]
same_round:
    mov qword ptr [rax + {CTL_WALK}], r11
    mov qword ptr [r11 + {WALK_LINEAR}], rsi
    mov dword ptr [r11 + {WALK_MARKS}], 0
    mov r10, qword ptr [rsp + 8]
    mov qword ptr [r11 + {WALK_RETURN}], r10
    push rbx
    push rcx
    push rdx
    mov rbx, rax
    mov rdx, qword ptr [rbx + {CTL_ENV}]
    mov r10, r11
    mov rax, qword ptr [rdx + {at.ENV_CR2}]
    mov qword ptr [rbx + {CTL_CR2_BEFORE}], rax
    cmp dword ptr [rdx + {at.ENV_CR0}], 0
    jns noted
    mov r11, qword ptr [rdx + {at.ENV_CR3}]
    test dword ptr [rdx + {at.ENV_CR4}], {CR4_PAE}
    jz two_level
    test dword ptr [rdx + {at.ENV_SUMMARY}], {SUMMARY_LONG}
    jz pae
    mov rax, rsi
    sar rax, 47
    inc rax
    cmp rax, 1
    ja not_canonical
    and r11, -4096
    mov rax, rsi
    shr rax, 39
    and eax, 0x1ff
    {_note("level4", 8)}
    mov rax, rsi
    shr rax, 30
    and eax, 0x1ff
    {_note("level3", 8)}
    test cl, 0x80
    jnz noted
    jmp directory
pae:
    and r11, -32
    mov r11d, r11d
    mov rax, rsi
    shr rax, 30
    and eax, 3
    {_note("pointers", 8, marks=False)}
directory:
    mov rax, rsi
    shr rax, 21
    and eax, 0x1ff
    {_note("directory_entry", 8)}
    test cl, 0x80
    jnz noted
    mov rax, rsi
    shr rax, 12
    and eax, 0x1ff
    {_note("wide_entry", 8)}
    jmp noted
two_level:
    and r11, -4096
    mov r11d, r11d
    mov eax, esi
    shr eax, 22
    {_note("short_directory_entry", 4)}
    test cl, 0x80
    jz table
    test dword ptr [rdx + {at.ENV_CR4}], {CR4_PSE}
    jnz noted
table:
    mov eax, esi
    shr eax, 12
    and eax, 0x3ff
    {_note("short_entry", 4)}
    jmp noted
not_canonical:
    mov dword ptr [rbx + {CTL_NOT_CANONICAL}], 1
noted:
    pop rdx
    pop rcx
    pop rbx
    {WALK_AND_MARK}
"""
