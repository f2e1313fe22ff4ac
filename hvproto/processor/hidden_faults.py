"""Page faults that only a deprivileged guest's mirror has, dealt with in the middle of a run and with nobody asked.

What the guest's tables allow, and its mirror hides until A is set (or D, for a store), faults once for each page: ten
thousand times where a small system forks sixty times. Whoever has dealt with one says what the last-level table is that
it came by, and machine code deals with the next ones through that table: it sets the bits, shows the page in either
view, and the guest's instruction is begun anew. 0.2 us of what takes 6 in Python; the fault itself takes 1 more.

It does so where all that leads there is as simple as `simple_tables` has it, and the page isn't another one than
before: so what was known of it is still so, but that it can be stored to now. With all else, nothing is done. What was
said holds until whoever said it changes the number that it gave with it.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from itertools import count

from hvproto.addresses import PAGE_SHIFT
from hvproto.processor.control_block import CTL_CR2, CTL_ERROR, CTL_GUEST, CTL_HIDDEN, CTL_UNASKED, CTL_WAITING
from hvproto.processor.paging import FOUR_LEVEL, A, D, P, U, W
from hvproto.processor.simple_tables import ABOVE, mirrored
from hvproto.processor.unasked import DECIDES, ELSEWHERE, IN_PROGRAM

_PRESENT, _HEADER = 0, 8
_SLOT, _VERSION, _SIZE, _ENTRIES, _KERNEL, _USER, _SHOWN, _EXECUTED = range(0, 64, 8)
_RECORD = struct.Struct("<16Q")
_RECORD_SHIFT = 7
_RECORDS = 64
SLOT_SHIFT = 21
"""A slot is what 512 pages side by side are in."""
_WRITE, _RESERVED_OR_FETCH = 2, 0x18
_VERSIONS = count(1)
"""Each is given once."""


@dataclass(frozen=True, slots=True)
class HiddenSlot:
    """The part of a last-level table that maps one slot. Addresses are our own memory's."""

    slot: int
    """Linear address of its first page, divided by the slot's size."""
    version: int
    """What the number was that `Version` has, when this was true."""
    entry_size: int
    entries: int
    """The address of the guest's entry for the first page."""
    kernel: int
    """The address of the row of 512 entries that show it in the kernel's view."""
    user: int
    """... and in the user's view, or 0."""
    shown: int
    """What is set in each entry of a view."""
    executed: int
    """The address of 512 bits, those set that are of pages that machine code leaves alone; or 0."""
    above: int
    """W and U of what leads to the table. A is set in all of that."""
    reserved: int
    frame_mask: int
    read_only: int
    """What is added to the kernel view's entry for a dirty page that the guest may not write to."""
    frames: int
    """As a `SimpleTable` has it."""
    frame_count: int


class Version:
    """A number that nobody else has ever had, until it changes, and then again."""

    def __init__(self) -> None:
        self._cell = ctypes.c_uint64(next(_VERSIONS))
        self.address = ctypes.addressof(self._cell)

    @property
    def number(self) -> int:
        return self._cell.value

    def change(self) -> None:
        self._cell.value = next(_VERSIONS)


def show_hidden(otherwise: str, done: str) -> str:
    """A page fault that is about to be delivered: to ``done`` with the answer in EAX, or to ``otherwise``.

    RBX is the control block; RSI, RDI and R8 to R11 are lost, as are the registers of a call.
    """
    return f"""
    mov r8, qword ptr [rbx + {CTL_GUEST}]
    bt r8, {DECIDES.bit_length() - 1}
    jnc {otherwise}
    mov rcx, qword ptr [rbx + {CTL_WAITING}]
    cmp dword ptr [rcx], 0
    jne {otherwise}
    mov esi, dword ptr [rbx + {CTL_ERROR}]
    test esi, {_RESERVED_OR_FETCH}
    jnz {otherwise}
    mov rdx, qword ptr [rbx + {CTL_CR2}]
    mov rdi, rdx
    shr rdi, {SLOT_SHIFT}
    mov eax, edi
    shr eax, {_RECORDS.bit_length() - 1}
    xor eax, edi
    and eax, {_RECORDS - 1}
    shl eax, {_RECORD_SHIFT}
    mov r10, qword ptr [rbx + {CTL_HIDDEN}]
    lea rax, [r10 + rax + {_HEADER}]
    cmp rdi, qword ptr [rax + {_SLOT}]
    jne {otherwise}
    mov r10, qword ptr [r10 + {_PRESENT}]
    test r10, r10
    jz {otherwise}
    mov r10, qword ptr [r10]
    cmp r10, qword ptr [rax + {_VERSION}]
    jne {otherwise}
    shr rdx, {PAGE_SHIFT}
    and edx, 511
    mov r10, qword ptr [rax + {_EXECUTED}]
    test r10, r10
    jz hidden_data
    bt dword ptr [r10], edx
    jc {otherwise}
hidden_data:
    mov rdi, qword ptr [rax + {_ENTRIES}]
    cmp dword ptr [rax + {_SIZE}], 4
    je hidden_by_4
    lea rdi, [rdi + rdx*8]
    mov r9, qword ptr [rdi]
    jmp hidden_entry
hidden_by_4:
    lea rdi, [rdi + rdx*4]
    mov r9d, dword ptr [rdi]
hidden_entry:
    test r9d, {P}
    jz {otherwise}
    mov r10, qword ptr [rax + {ABOVE}]
    and r10, r9
    bt r8, {IN_PROGRAM.bit_length() - 1}
    jnc hidden_from_kernel
    test r10d, {U}
    jz {otherwise}
hidden_from_kernel:
    or r9, {A}
    test esi, {_WRITE}
    jz hidden_allowed
    test r10d, {W}
    jz {otherwise}
    or r9, {D}
hidden_allowed:
    {mirrored("hidden", "r9", f"qword ptr [rax + {_SHOWN}]", otherwise)}
    mov rsi, qword ptr [rax + {_KERNEL}]
    lea rsi, [rsi + rdx*8]
    mov r10, qword ptr [rsi]
    test r10, r10
    jz {otherwise}
    xor r10, rcx
    movabs r8, {FOUR_LEVEL.frame_mask}
    test r10, r8
    jnz {otherwise}
    mov r10, qword ptr [rax + {_USER}]
    test r10, r10
    jz hidden_from_user
    mov qword ptr [r10 + rdx*8], r11
    jmp hidden_shown
hidden_from_user:
    test r11, r11
    jnz {otherwise}
hidden_shown:
    mov qword ptr [rsi], rcx
    cmp dword ptr [rax + {_SIZE}], 4
    je hidden_store_4
    mov qword ptr [rdi], r9
    jmp hidden_stored
hidden_store_4:
    mov dword ptr [rdi], r9d
hidden_stored:
    inc qword ptr [rbx + {CTL_UNASKED}]
    mov eax, {ELSEWHERE}
    jmp {done}
"""


class HiddenFaults:
    """Of one engine; none is dealt with at first."""

    def __init__(self) -> None:
        self._memory = (ctypes.c_uint64 * ((_HEADER + (_RECORDS << _RECORD_SHIFT)) // 8))()
        self.address = ctypes.addressof(self._memory)

    def set_present(self, version: Version | None) -> None:
        """What is said with the number that this has from now on, or None: with no number at all."""
        self._memory[_PRESENT // 8] = 0 if version is None else version.address

    def knows(self, slot: int, version: int) -> bool:
        """Whether that was said of a slot with this number, and isn't forgotten."""
        place = _place(slot)
        return self._memory[place] == slot and self._memory[place + 1] == version

    def say(self, slot: HiddenSlot) -> None:
        """Have faults in a slot dealt with as long as the present number is the one that it was said with."""
        _RECORD.pack_into(
            self._memory, 8 * _place(slot.slot),
            slot.slot, slot.version, slot.entry_size, slot.entries, slot.kernel, slot.user, slot.shown,
            slot.executed, slot.above, slot.reserved, slot.frame_mask, slot.read_only, slot.frames, slot.frame_count,
            0, 0,
        )  # fmt: skip


def _place(slot: int) -> int:
    """Where its record is, in words of 8 bytes."""
    return (_HEADER + (((slot ^ slot >> _RECORDS.bit_length() - 1) & _RECORDS - 1) << _RECORD_SHIFT)) // 8
