"""Stores to entries of a deprivileged guest's page tables that may be cached, followed with nobody asked.

A page that is nothing but one last-level table of the mirror that is loaded, and maps no page of the region and no
code: whoever follows a store there in Python (3 us) says what the page is, and machine code follows the next ones by
itself, in 0.1 us, where the entry was and is present and accessed. It writes the entry of either view, has the engine
forget the page, and does the store. Stores to a part of an entry, reserved bits, frames that aren't RAM, and all stores
while others wait go to Python, with nothing done.

What was said holds until anything else calls Python (`FOLLOWS` in CTL_GUEST); then Python is told first how many stores
were followed. What `unasked` knows may depend on the entry: machine code that follows stores decides nothing else.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from hvproto.addresses import PAGE_MASK, PAGE_SHIFT
from hvproto.processor import private_layout as at
from hvproto.processor.deferred_stores import COUNT, KNOWN, PRESENT_AND_ACCESSED, RAM, DeferredStores
from hvproto.processor.paging import D, U, W
from hvproto.processor.unasked import FOLLOWED, FOLLOWS

_GENERATION, _GUEST, _FOLLOWED_COUNT, _SHOWN, _HEADER = range(0, 40, 8)
_PAGE, _SAID, _SIZE, _FIRST, _KERNEL, _USER = 0, 8, 16, 24, 32, 48
ABOVE, RESERVED, FRAME_MASK, READ_ONLY, FRAMES, FRAME_COUNT = range(64, 112, 8)
"""Where a record has what `mirrored` needs."""
_RECORD_SHIFT = 7
_RECORDS = 64
"""By the lowest bits of the page's number."""
_RECORD = struct.Struct("<14Q")
_STATE = FOLLOWS | FOLLOWED


@dataclass(frozen=True, slots=True)
class SimpleTable:
    """What there is to know about a last-level table. Addresses are our own memory's, where nothing is said."""

    page: int
    """The number of its page of RAM."""
    entry_size: int
    first: int
    """The linear address of the first page that it maps."""
    kernel: tuple[int, int]
    """The addresses of the rows of 512 entries that show it in the kernel's view; 0 for one that Python sees to."""
    user: tuple[int, int]
    """... and in the user's view; 0 for one that isn't there."""
    above: int
    """W and U of what leads to the table. A is set in all of that."""
    reserved: int
    frame_mask: int
    read_only: int
    """What is added to the kernel view's entry for a dirty page that the guest may not write to."""
    frames: int
    """The address of a table of eight bytes for each guest-physical page: that of its frame, with bit 0 set if there is
    something, and bit 1 if it is no RAM."""
    frame_count: int


def mirrored(name: str, entry: str, shown: str, otherwise: str) -> str:
    """RCX, R11: a view's entry for a page that a guest's entry maps which is present and accessed, the kernel's and the
    user's. RAX is the table's record, ``entry`` a register, R8 or R9; R10 is lost. ``name`` makes the labels' names."""
    return f"""
    test {entry}, qword ptr [rax + {RESERVED}]
    jnz {otherwise}
    mov rcx, {entry}
    and rcx, qword ptr [rax + {FRAME_MASK}]
    shr rcx, {PAGE_SHIFT}
    cmp rcx, qword ptr [rax + {FRAME_COUNT}]
    jae {otherwise}
    mov r10, qword ptr [rax + {FRAMES}]
    mov rcx, qword ptr [r10 + rcx*8]
    mov r10d, ecx
    and r10d, 3
    cmp r10d, 1
    jne {otherwise}
    or rcx, {shown}
    mov r10, qword ptr [rax + {ABOVE}]
    and r10, {entry}
    xor r11d, r11d
    test r10d, {U}
    cmovnz r11, rcx
    test {entry}d, {D}
    jz {name}_mapped
    test r10d, {W}
    jz {name}_read_only
    or rcx, {W | D}
    test r10d, {U}
    jz {name}_mapped
    or r11, {W | D}
    jmp {name}_mapped
{name}_read_only:
    or rcx, qword ptr [rax + {READ_ONLY}]
{name}_mapped:
"""


# In a store (`store_helpers`) to an entry that may be cached, with the registers of `NOTE` and those of the engine's
# function: to ``otherwise`` with nothing done and RDI and RSI as they were; else all is, and the stack is as it was.
FOLLOW = f"""
    mov rcx, qword ptr [r9 + {KNOWN}]
    mov r11, rcx
    mov rax, qword ptr [rcx + {_GUEST}]
    mov rax, qword ptr [rax]
    bt rax, {FOLLOWS.bit_length() - 1}
    jnc otherwise
    mov r10, rdx
    shr r10, {PAGE_SHIFT}
    mov eax, r10d
    and eax, {_RECORDS - 1}
    shl eax, {_RECORD_SHIFT}
    lea rax, [rcx + rax + {_HEADER}]
    cmp r10, qword ptr [rax + {_PAGE}]
    jne otherwise
    mov r10, qword ptr [rcx + {_GENERATION}]
    cmp r10, qword ptr [rax + {_SAID}]
    jne otherwise
    cmp dword ptr [r9 + {COUNT}], 0
    jne otherwise
    cmp qword ptr [rax + {_SIZE}], {{size}}
    jne otherwise
    mov {{value}}, {{value}}
    mov ecx, r8d
    and ecx, {PRESENT_AND_ACCESSED}
    cmp ecx, {PRESENT_AND_ACCESSED}
    jne otherwise
    {mirrored("follow", "r8", f"qword ptr [r11 + {_SHOWN}]", "otherwise")}
    push rsi
    push rdi
    mov r10d, edx
    and r10d, {PAGE_MASK}
    shr r10d, {{shift}}
    mov esi, r10d
    shr esi, 9
    mov rdi, qword ptr [rax + rsi*8 + {_KERNEL}]
    mov rsi, qword ptr [rax + rsi*8 + {_USER}]
    and r10d, 511
    test rdi, rdi
    jz refused
    lea rdi, [rdi + r10*8]
    cmp qword ptr [rdi], 0
    je refused
    test rsi, rsi
    jz kernels_only
    mov qword ptr [rsi + r10*8], r11
    jmp shown
kernels_only:
    test r11, r11
    jnz refused
shown:
    mov qword ptr [rdi], rcx
    mov esi, edx
    and esi, {PAGE_MASK}
    shr esi, {{shift}}
    shl esi, {PAGE_SHIFT}
    add rsi, qword ptr [rax + {_FIRST}]
    mov rdi, qword ptr [rsp]
    sub rdi, {at.STATE_IN_CPU}
    mov qword ptr [rsp], r9
    mov qword ptr [rsp + 8], rdx
    movabs rax, {{flush_page}}
    call rax
    pop r9
    pop rdx
    pop r8
    add rsp, 16
    mov r10, qword ptr [r9 + {KNOWN}]
    inc qword ptr [r10 + {_FOLLOWED_COUNT}]
    mov rax, qword ptr [r10 + {_GUEST}]
    bts qword ptr [rax], {FOLLOWED.bit_length() - 1}
    mov r11, qword ptr [r9 + {RAM}]
    mov {{stored}}
    pop rax
    jmp rax
refused:
    pop rdi
    pop rsi
    jmp otherwise
"""


class SimpleTables:
    """Of one engine; none at first."""

    def __init__(self, stores: DeferredStores, guest: int) -> None:
        """``guest``: the address of CTL_GUEST."""
        self._memory = (ctypes.c_uint64 * ((_HEADER + (_RECORDS << _RECORD_SHIFT)) // 8))()
        self._memory[_GENERATION // 8], self._memory[_GUEST // 8] = 1, guest
        self._guest = ctypes.c_uint64.from_address(guest)
        self._followed = ctypes.c_uint64.from_buffer(self._memory, _FOLLOWED_COUNT)
        stores.block[KNOWN // 8] = ctypes.addressof(self._memory)
        self._hears: Callable[[], Callable[[int], None] | None] = lambda: None

    def start(self, hears: Callable[[int], None], shown: int) -> None:
        """A guest may say what it has. ``hears``, a method that isn't held, gets the number of stores that were
        followed, before Python looks at the guest. ``shown`` is set in each entry of a view."""
        self._hears = weakref.WeakMethod(hears)
        self._memory[_SHOWN // 8] = shown

    def say(self, table: SimpleTable) -> None:
        """Have stores to a table followed, until anything calls Python."""
        if not self._guest.value & FOLLOWS:
            self._memory[_GENERATION // 8] += 1  # what was said before doesn't count any more
        _RECORD.pack_into(
            self._memory, _HEADER + ((table.page & _RECORDS - 1) << _RECORD_SHIFT),
            table.page, self._memory[_GENERATION // 8], table.entry_size, table.first, *table.kernel, *table.user,
            table.above, table.reserved, table.frame_mask, table.read_only, table.frames, table.frame_count,
        )  # fmt: skip
        self._guest.value |= FOLLOWS

    def tell(self) -> None:
        """Have it heard how many stores were followed, and none more be."""
        count = self._followed.value
        self._followed.value = 0
        self._guest.value &= ~_STATE
        hears = self._hears()
        if hears is not None and count:
            hears(count)
