"""The transfers between a deprivileged kernel and its programs that machine code may make by itself (`unasked`).

A table in memory that Python fills and machine code reads: by vector, what an INT n from ring 3 depends on and what it
leads to; what an IRET may return to; where the kernel's stack lies; and the selectors that the kernel may load.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

VECTORS = 256
GATE, GATE_VALUE, TSS, TSS_VALUE, PROTECTED, FRAME, STACK, EIP, KEPT, USER_CODE, USER_STACK, SIDE = range(0, 96, 8)
_CALL_SIZE = 96
_RETURN = 8 * VECTORS
OUT_CODE, OUT_STACK, OUT_OPEN, OUT_SIDE, OUT_KERNEL = range(_RETURN, _RETURN + 40, 8)
PAGE, PAGE_ADDRESS, PAGE_PROTECTED = range(_RETURN + 40, _RETURN + 64, 8)
OPEN, OPEN_COUNT = _RETURN + 64, 4
_TABLE_SIZE = OPEN + 8
_NONE = 1 << 32
"""No selector, no page."""
_NO_SELECTORS = 0x0004_0004_0004_0004
"""Four of the LDT, which is asked about before them."""


@dataclass(frozen=True, slots=True)
class KnownCall:
    """An INT n from ring 3 in flat segments: what it depends on, and what comes of it. Addresses are our own memory's.

    ``gate`` and ``tss`` are eight bytes each, which must be what they were: ESP0 and SS0 of the TSS. ``protected`` is a
    byte that must be 0. ``frame`` is where EIP, CS, EFLAGS, ESP and SS go. ``kept``: the flags that stay, all others
    that the processor doesn't have being cleared. ``side`` is that of a `Side`.
    """

    gate: int
    tss: int
    protected: int
    frame: int
    esp: int
    eip: int
    kept: int
    user_code: int
    user_stack: int
    side: int


class KnownTransfers:
    """The table of them; empty at first. ``address`` is its place in our memory."""

    def __init__(self) -> None:
        self._table = (ctypes.c_uint64 * (_TABLE_SIZE // 8))()
        self._calls: dict[int, ctypes.Array[ctypes.c_uint64]] = {}
        self.address = ctypes.addressof(self._table)
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        for vector in self._calls:
            self._table[vector] = 0
        self._calls.clear()
        self._table[OUT_KERNEL // 8] = self._table[OUT_CODE // 8] = self._table[PAGE // 8] = _NONE
        self._table[OPEN // 8] = _NO_SELECTORS

    def add_call(self, vector: int, call: KnownCall) -> None:
        """From now on, INT n with this vector is that."""
        gate_value, tss_value = (ctypes.c_uint64.from_address(one).value for one in (call.gate, call.tss))
        entry = (ctypes.c_uint64 * (_CALL_SIZE // 8))(
            call.gate, gate_value, call.tss, tss_value, call.protected, call.frame, call.esp, call.eip,
            call.kept & 0xFFFF_FFFF | 0xFFFF_FFFF << 32, call.user_code, call.user_stack, call.side,
        )  # fmt: skip
        self._calls[vector] = entry
        self._table[vector] = ctypes.addressof(entry)

    def set_return(self, code: int, stack: int, open_selectors: int, side: int) -> None:
        """From now on, IRET to ring 3 with these selectors on the stack goes to that `Side`, if ES, DS, FS and GS hold
        just those selectors."""
        for place, value in ((OUT_STACK, stack), (OUT_OPEN, open_selectors), (OUT_SIDE, side), (OUT_CODE, code)):
            self._table[place // 8] = value

    def set_kernel(self, code: int) -> None:
        """... and IRET with this selector stays in the kernel."""
        self._table[OUT_KERNEL // 8] = code

    def set_stack(self, page: int, address: int, protected: int) -> None:
        """A page of the kernel's stack, by its number, lies there; as long as the byte at ``protected`` is 0, it can be
        stored to. The engine's TLB doesn't hold it if nobody else has accessed it."""
        for place, value in ((PAGE_ADDRESS, address), (PAGE_PROTECTED, protected), (PAGE, page)):
            self._table[place // 8] = value

    def add_open(self, selector: int) -> None:
        """The kernel may load this selector of the GDT, or a null one, into ES, DS, FS or GS; the last four count."""
        selectors = self._table[OPEN // 8]
        if selector not in struct.unpack("<4H", struct.pack("<Q", selectors)):
            self._table[OPEN // 8] = (selectors << 16 | selector) & (1 << 64) - 1

    @property
    def stack(self) -> tuple[int, int]:
        """The page that `set_stack` was about, and ``protected``."""
        return self._table[PAGE // 8], self._table[PAGE_PROTECTED // 8]
