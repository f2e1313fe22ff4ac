"""Stores of translated code to protected pages, done and noted without the engine's list of hooks.

For a store that isn't a plain one, the engine's translated code calls one of a handful of functions, by size and byte
order, that it finds in a constant table. On the way from there to `deferred_stores.DEFER_STORE`, the engine looks for
the memory behind the address, for the instruction that it is at, and for hooks: 40 ns a store. Machine code of ours
takes the place of the functions for four and eight bytes, finds in the engine's TLB what the store is to, and notes it:
10 ns. In place of the others, it only does what translated code does no more: look for a request to stop.

Whatever isn't such a store the engine's own function gets, with nothing done: those of other instances, to entries that
may be cached (but see `simple_tables`), across entries, and all of them while there is a hook on stores (the debugger's
watches). What the engine stores by itself - frames of exceptions, task switches - doesn't come here. Where the table
isn't found, all is as ever.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

from hvproto.addresses import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from hvproto.processor import private_layout as at
from hvproto.processor.control_block import CTL_STORES
from hvproto.processor.deferred_stores import AT_HELPER, NOTE, PROTECTED, RAM_SIZE
from hvproto.processor.library_table import constant_of
from hvproto.processor.simple_tables import FOLLOW
from hvproto.processor.taken_places import CONTROL_OF_STATE, keep

_TABLE = (
    "helper_ret_stb_mmu", "helper_le_stw_mmu", "helper_le_stl_mmu", "helper_le_stq_mmu", *[""] * 5,
    "helper_be_stw_mmu", "helper_be_stl_mmu", "helper_be_stq_mmu",
)  # fmt: skip
"""The engine's table, by the binary logarithm of the size, and 8 more for the other byte order."""
_REPLACED = {4: ("r8d", "dword ptr [r11 + rdx], r8d"), 8: ("r8", "qword ptr [r11 + rdx], r8")}
"""By size: what of the value counts, and how it is stored."""
_MMU_INDEX, _ALIGNMENT = 0xF, 0x700
"""In what the engine says of an access: which TLB, and whether it has to be aligned."""


# The engine's own function, and then a look for a request to stop, for a store that may not have been done: so that
# translated code needn't look (`block_beginnings`).
_BY_THE_ENGINE = f"""
    push rdi
    movabs rax, {{helper}}
    call rax
    pop rdi
    cmp dword ptr [rdi + {at.ENV_STOP_REQUEST}], 0
    js stopped
    pop rax
    jmp rax
stopped:
    mov rdi, qword ptr [rdi + {at.ENV_UC}]
    xor esi, esi
    movabs rax, {{look_for_stop}}
    jmp rax
plain:
    movabs rax, {{helper}}
    jmp rax
"""


def _store(size: int) -> str:
    """In place of a function: RDI is env, RSI the linear address, RDX the value, ECX what is said of the access, R8
    where translated code goes on. All registers that a call may change are free.

    Translated code doesn't call it, but pushes the address and jumps. So a RET isn't foreseen: it would cost 7 ns.
    """
    return f"""
    {CONTROL_OF_STATE}
    mov r9, qword ptr [r9 + {CTL_STORES}]
    test r9, r9
    jz by_the_engine
    mov r10, qword ptr [rdi + {at.ENV_UC}]
    cmp qword ptr [r10 + {at.UC_STORE_HOOKS}], 0
    jne by_the_engine
    test esi, {size - 1}
    jnz by_the_engine
    test ecx, {_ALIGNMENT}
    jnz by_the_engine
    mov r10d, ecx
    and r10d, {_MMU_INDEX}
    shl r10d, {at.TLB_DESCRIPTION_SHIFT}
    add r10, rdi
    mov rax, rsi
    shr rax, {at.TLB_INDEX_SHIFT}
    and rax, qword ptr [r10 + {at.ENV_TLB_MASKS}]
    add rax, qword ptr [r10 + {at.ENV_TLB_TABLES}]
    mov r11, rsi
    and r11, {-PAGE_SIZE}
    xor r11, qword ptr [rax + {at.TLB_WRITE}]
    and r11, {~at.TLB_NOTDIRTY}
    cmp r11, {at.TLB_DISCARD}
    jne by_the_engine
    push r8
    push rcx
    push rdx
    mov r8, rdx
    mov edx, esi
    and edx, {PAGE_MASK}
    or rdx, qword ptr [rax + {at.TLB_PHYSICAL}]
    mov ecx, {size}
    cmp rdx, qword ptr [r9 + {RAM_SIZE}]
    jae otherwise
    mov r10, rdx
    shr r10, {PAGE_SHIFT}
    mov r11, qword ptr [r9 + {PROTECTED}]
    cmp byte ptr [r11 + r10], 0
    je otherwise
    {NOTE}
    mov {{stored}}
    inc qword ptr [r9 + {AT_HELPER}]
    add rsp, 24
    pop rax
    jmp rax
at_once:
    {FOLLOW}
otherwise:
    pop rdx
    pop rcx
    pop r8
by_the_engine:
    {_BY_THE_ENGINE}
"""


@cache
def install() -> bool:
    """Take the functions' places, for the whole process and its life; False if that can't be done here."""
    try:
        functions = [at.address_of(f"{name}_x86_64") if name else 0 for name in _TABLE]
        flush_page, look_for_stop = (
            at.address_of(f"{name}_x86_64") for name in ("tlb_flush_page", "helper_check_exit_request")
        )
    except AttributeError:
        return False
    place = constant_of(f"{_TABLE[0]}_x86_64")
    if place is None:
        return False
    table = (ctypes.c_uint64 * len(_TABLE)).from_address(place)
    first = place & -mmap.PAGESIZE
    length = place + ctypes.sizeof(table) - first
    if list(table) != functions or not _set_rights(first, length, mmap.PROT_READ | mmap.PROT_WRITE):
        return False
    for number, function in enumerate(functions):
        if not function:
            continue
        size = 1 << (number & 3)
        value, stored = _REPLACED.get(size, ("", ""))
        source = _store(size) if size in _REPLACED and number < 4 else CONTROL_OF_STATE + _BY_THE_ENGINE
        names: dict[str, int | str] = {
            "helper": function,
            "look_for_stop": look_for_stop,
            "flush_page": flush_page,
            "size": size,
            "shift": number,
            "value": value,
            "stored": stored,
        }
        table[number] = keep(source, names)
    _set_rights(first, length, mmap.PROT_READ)
    return True


def _set_rights(first: int, length: int, rights: int) -> bool:
    return not ctypes.CDLL(None).mprotect(ctypes.c_void_p(first), ctypes.c_size_t(length), rights)
