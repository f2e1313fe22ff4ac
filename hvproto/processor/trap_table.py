"""The planted traps by address, for machine code that calls the trap's hook at once.

Unicorn keeps its hooks on code in a list, and goes through all of it for each instruction that has one: with the
thousands that a guest's kernel and programs need, 10 us each. Here a hook that is alone at its address is found in a
table; others are looked for among those of their page (`code_hooks`); what isn't there, Unicorn looks for itself.
"""

from __future__ import annotations

import ctypes

from hvproto.processor import private_layout as at
from hvproto.processor.code_hooks import call_of_page
from hvproto.processor.control_block import CTL_TRAP_HOOK, CTL_TRAP_MASK, CTL_TRAPS

_FREE, _LEFT = (1 << 64) - 1, (1 << 64) - 2
"""A place that ends a search, and one that had an address: neither can be executed."""
FROM_BLOCK = 1
"""What the hook gets for its data if it is called by translated code itself, to which it needn't return."""
_FIRST_SIZE = 1 << 10
_SPREAD = 0x9E37_79B9
"""Addresses that differ little get places far apart: 2^32 divided by the golden ratio."""

# In place of the engine's `helper_uc_tracecode`: EDI is the instruction's size, ESI the kind of hook, RDX the instance,
# RCX the linear address. A request to stop is the engine's business.
TRACE = f"""
    cmp esi, {at.CODE_HOOKS}
    jne plain
    cmp byte ptr [rdx + {at.UC_STOP_REQUEST}], 0
    jne plain
    mov rax, qword ptr [rdx + {at.UC_CPU}]
    mov rax, qword ptr [rax + {at.CPU_TLB_FILL[0]}]
    mov r8, qword ptr [rax - 16]
    mov r9, qword ptr [r8 + {CTL_TRAPS}]
    imul r10d, ecx, {_SPREAD}
    shr r10d, 12
search:
    and r10, qword ptr [r8 + {CTL_TRAP_MASK}]
    mov rax, qword ptr [r9 + r10*8]
    cmp rax, rcx
    je found
    cmp rax, -1
    je on_page
    inc r10
    jmp search
found:
    mov rsi, rcx
    mov eax, edi
    mov rdi, rdx
    mov edx, eax
    mov ecx, {FROM_BLOCK}
    jmp qword ptr [r8 + {CTL_TRAP_HOOK}]
on_page:
    {call_of_page("plain")}
plain:
    movabs rax, {{helper_uc_tracecode}}
    jmp rax
"""


class TrapTable:
    """Of one engine."""

    def __init__(self, control: int, hook: int) -> None:
        """``control``: the address of the control block. ``hook``: that of the machine code that all traps have."""
        self._place, self._mask = (
            ctypes.c_uint64.from_address(control + field) for field in (CTL_TRAPS, CTL_TRAP_MASK)
        )
        ctypes.c_uint64.from_address(control + CTL_TRAP_HOOK).value = hook
        self._addresses: set[int] = set()
        self._is_closed = False
        self._build(_FIRST_SIZE)

    def _build(self, size: int) -> None:
        self._words = (ctypes.c_uint64 * size)(*([_FREE] * size))
        self._size, self._used = size, 0
        for address in self._addresses:
            self._put(address)
        self._place.value, self._mask.value = ctypes.addressof(self._words), size - 1

    def _put(self, address: int) -> None:
        place = self._first(address)
        while self._words[place] < _LEFT:
            place = place + 1 & self._size - 1
        self._used += self._words[place] == _FREE
        self._words[place] = address

    def _first(self, address: int) -> int:
        return (address * _SPREAD & 0xFFFF_FFFF) >> 12 & self._size - 1

    def add(self, address: int) -> None:
        """An address has a trap and no other hook."""
        if address not in self._addresses and not self._is_closed:
            self._addresses.add(address)
            if self._used * 2 >= self._size:
                self._build(max(_FIRST_SIZE, 1 << (4 * len(self._addresses)).bit_length()))
            else:
                self._put(address)

    def remove(self, address: int) -> None:
        """... no longer."""
        if address in self._addresses:
            self._addresses.remove(address)
            place = self._first(address)
            while self._words[place] != address:
                place = place + 1 & self._size - 1
            self._words[place] = _LEFT

    def close(self) -> None:
        """Every address may have another hook from now on."""
        self._is_closed = True
        self._addresses.clear()
        self._build(_FIRST_SIZE)
