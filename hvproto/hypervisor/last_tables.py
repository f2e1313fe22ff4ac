"""The last-level table of a guest's that accesses to pages are made through for the first time, one after the other.

`Mirror.touch` walks the guest's tables from the root, and the two views from theirs: 17 Y (of an empty hook). What it
has found above a last-level table is the same for the next page of that table, until a range of that mirror is mirrored
anew. With that, one entry is looked at, marked and shown: 4 Y.
"""

from __future__ import annotations

import ctypes

from hvproto.addresses import GPA
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.levels import Level
from hvproto.hypervisor.view import ADDRESS, SHOWN, SLOT_PAGES, View
from hvproto.processor.hidden_faults import SLOT_SHIFT as HIDDEN_SLOT_SHIFT
from hvproto.processor.hidden_faults import HiddenSlot
from hvproto.processor.paging import A, D, P, U, W

_INDEX = SLOT_PAGES - 1


class LastTable:
    """The part of it that one slot of the views shows, where no page is the region's."""

    __slots__ = (
        "_above", "_bits", "_entries", "_executed", "_first", "_frame_mask", "_gpa", "_kernel", "_kernel_row",
        "_memory", "_reserved", "_size", "_user", "_user_row", "_words", "_write_protect",
    )  # fmt: skip

    def __init__(
        self, ram: memoryview, memory: GuestMemory, leaf: Level, frame_mask: int, size: int, gpa: int, above: int,
        kernel: View, user: View, slot: int, executed: frozenset[int], *, write_protect: bool,
    ) -> None:  # fmt: skip
        """``gpa`` is where the guest's entry for the slot's first page is, ``above`` has W and U combined of what leads
        to it; A is set in all of that. ``executed``: the numbers of pages that may be fetched from."""
        self._executed = executed
        self._bits = _as_bits(executed) if executed else None
        self._words, self._entries = ram.cast("Q"), ram.cast("Q" if size == 8 else "I")
        self._memory, self._reserved, self._frame_mask, self._size = memory, leaf.reserved, frame_mask, size
        self._gpa, self._first = gpa, (memory.to_host(gpa) or 0) // size
        self._above, self._write_protect = above, write_protect
        self._kernel, self._user = kernel, user
        self._kernel_row, self._user_row = kernel.row_of(slot), user.row_of(slot)

    def as_data(self, linear: int, version: int, ram_address: int) -> tuple[GPA, HiddenSlot]:
        """What machine code needs for a page of this slot, and the GPA of the guest's entries."""
        user = ram_address + 8 * self._user_row if self._user_row else 0
        return GPA(self._gpa), HiddenSlot(
            linear >> HIDDEN_SLOT_SHIFT, version, self._size, ram_address + self._first * self._size,
            ram_address + 8 * self._kernel_row, user, SHOWN,
            0 if self._bits is None else ctypes.addressof(self._bits), self._above, self._reserved, self._frame_mask,
            0 if self._write_protect else W | D, *self._memory.low_frames,
        )  # fmt: skip

    def touch(self, page: int, write: bool, user: bool) -> bool:
        """As `Mirror.touch`; False, and nothing done, also where it isn't so simple."""
        if page in self._executed:
            return False
        index, memory, words = page & _INDEX, self._memory, self._words
        entry = self._entries[self._first + index]
        rights = self._above & entry
        if not entry & P or entry & self._reserved or (user and not rights & U) or (write and not rights & W):
            return False
        frame = memory.to_host(entry & self._frame_mask)
        if frame is None or frame >= len(words) << 3:
            return False
        shown = frame & ADDRESS | SHOWN
        by_kernel, by_user = shown, shown if rights & U else 0
        marked = entry | (A | D if write else A)
        if marked & D:
            if rights & W:
                by_kernel |= W | D
                by_user |= W | D if by_user else 0
            elif not self._write_protect:
                by_kernel |= W | D
        at = self._kernel_row + index
        old = words[at]
        if not old or (by_user and not self._user_row):
            return False
        if marked != entry:
            self._entries[self._first + index] = marked
            if memory.on_bits is not None:
                memory.on_bits(GPA(self._gpa + index * self._size))
        words[at] = by_kernel
        if old & P:
            self._kernel.changes += 1
        if self._user_row:
            at = self._user_row + index
            if words[at] & P:
                self._user.changes += 1
            words[at] = by_user
        return True


def _as_bits(pages: frozenset[int]) -> ctypes.Array[ctypes.c_uint64]:
    bits = (ctypes.c_uint64 * (SLOT_PAGES // 64))()
    for page in pages:
        bits[(page & _INDEX) >> 6] |= 1 << (page & 63)
    return bits
