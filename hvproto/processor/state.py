"""The engine's processor state as bytes: where each piece lies, and a view on it.

Unicorn has no call that reads or writes the hidden part of a segment register, the privilege level or the error code of
an exception. All of it lies in the structure that the engine keeps and that a saved context is a copy of. The native
way looks at the living structure, the portable way at a copy; where things lie is a `StateLayout` in both cases.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

from hvproto.processor.segments import ATTRIBUTE_MASK, DEFAULT_BIG, DPL_SHIFT, LONG, Segment, SegmentRegister
from hvproto.processor.settings import CR0_PE, CR4_OSFXSR, EFER_LMA, EFLAGS_IOPL, EFLAGS_TF, EFLAGS_VM

SEGMENT_CACHE = struct.Struct("<IxxxxQII")
"""A segment register as the engine keeps it: selector, base, limit, descriptor bits."""

# The engine's summary of the state, by which it looks up translated code ("hflags").
SUMMARY_CPL = 3
SUMMARY_SHADOW = 1 << 3
"""No interrupt before the next instruction is done: the last one was an STI or a load of SS."""
SUMMARY_CODE_32 = 1 << 4
SUMMARY_STACK_32 = 1 << 5
SUMMARY_ADD_BASES = 1 << 6
SUMMARY_PROTECTED = 1 << 7
SUMMARY_FPU_SHIFT = 9 - 1
"""CR0.MP, EM and TS lie there at bits 9 to 11."""
SUMMARY_FPU = 7 << 9
SUMMARY_LONG = 1 << 14
SUMMARY_CODE_64 = 1 << 15
SUMMARY_OSFXSR = 1 << 22
SUMMARY_FROM_EFLAGS = EFLAGS_TF | EFLAGS_IOPL | EFLAGS_VM
"""Bits that the engine takes from EFLAGS whenever it looks; in the summary itself they would stay for good."""
SUMMARY_DERIVED = (
    SUMMARY_CPL | SUMMARY_CODE_32 | SUMMARY_STACK_32 | SUMMARY_ADD_BASES | SUMMARY_PROTECTED | SUMMARY_FPU
    | SUMMARY_LONG | SUMMARY_CODE_64 | SUMMARY_OSFXSR | SUMMARY_FROM_EFLAGS
)  # fmt: skip
NMI_BLOCKED = 1 << 2
"""Of the second summary: between the delivery of an NMI and the next IRET."""


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Offsets in bytes from the state's beginning."""

    summary: int
    segments: int
    """ES, CS, SS, DS, FS and GS, one `SEGMENT_CACHE` after the other."""
    error_code: int
    is_software: int
    """Set if the last exception was an INT n, INT3 or INTO."""
    old_exception: int
    """The engine's memory for double faults: the last exception, or -1."""

    @property
    def second_summary(self) -> int:
        return self.summary + 4


class StateView:
    """A view on the state at an address. It owns nothing: the memory must outlive it."""

    def __init__(self, address: int, layout: StateLayout) -> None:
        self._segments = address + layout.segments
        self.summary = ctypes.c_uint32.from_address(address + layout.summary)
        self.second_summary = ctypes.c_uint32.from_address(address + layout.second_summary)
        self.error_code = ctypes.c_int32.from_address(address + layout.error_code)
        self.is_software = ctypes.c_int32.from_address(address + layout.is_software)
        self.old_exception = ctypes.c_int32.from_address(address + layout.old_exception)

    @property
    def cpl(self) -> int:
        return self.summary.value & SUMMARY_CPL

    @property
    def shadow(self) -> bool:
        return bool(self.summary.value & SUMMARY_SHADOW)

    def set_shadow(self, on: bool) -> None:
        self.summary.value = self.summary.value & ~SUMMARY_SHADOW | (SUMMARY_SHADOW if on else 0)

    @property
    def nmi_blocked(self) -> bool:
        return bool(self.second_summary.value & NMI_BLOCKED)

    def block_nmi(self) -> None:
        self.second_summary.value |= NMI_BLOCKED

    def unblock_nmi(self) -> None:
        self.second_summary.value &= ~NMI_BLOCKED

    def segment(self, register: SegmentRegister) -> Segment:
        raw = ctypes.string_at(self._segments + SEGMENT_CACHE.size * register, SEGMENT_CACHE.size)
        selector, base, limit, flags = SEGMENT_CACHE.unpack(raw)
        return Segment(selector, base, limit, flags & ATTRIBUTE_MASK)

    def set_segment(self, register: SegmentRegister, segment: Segment) -> None:
        """Load one register, hidden part and all; `summarize` must follow."""
        raw = SEGMENT_CACHE.pack(segment.selector, segment.base, segment.limit, segment.attributes)
        ctypes.memmove(self._segments + SEGMENT_CACHE.size * register, raw, SEGMENT_CACHE.size)

    def summarize(self, cr0: int, cr4: int, efer: int, eflags: int) -> None:
        """Bring the summary into agreement with the registers it is derived from."""
        code, stack = self.segment(SegmentRegister.CS), self.segment(SegmentRegister.SS)
        summary = self.summary.value & ~SUMMARY_DERIVED
        summary |= stack.attributes >> DPL_SHIFT & SUMMARY_CPL
        if cr0 & CR0_PE:
            summary |= SUMMARY_PROTECTED
        summary |= cr0 << SUMMARY_FPU_SHIFT & SUMMARY_FPU
        if cr4 & CR4_OSFXSR:
            summary |= SUMMARY_OSFXSR
        if efer & EFER_LMA:
            summary |= SUMMARY_LONG
        if efer & EFER_LMA and code.attributes & LONG:
            summary |= SUMMARY_CODE_32 | SUMMARY_STACK_32 | SUMMARY_CODE_64
        else:
            summary |= SUMMARY_CODE_32 if code.attributes & DEFAULT_BIG else 0
            summary |= SUMMARY_STACK_32 if stack.attributes & DEFAULT_BIG else 0
            if not cr0 & CR0_PE or eflags & EFLAGS_VM or not summary & SUMMARY_CODE_32 or self._any_base():
                summary |= SUMMARY_ADD_BASES
        self.summary.value = summary

    def _any_base(self) -> bool:
        return any(self.segment(r).base for r in (SegmentRegister.DS, SegmentRegister.ES, SegmentRegister.SS))
