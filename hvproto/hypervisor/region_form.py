"""The two forms that a region's tables can have: those of long mode, and those of 32-bit protected mode.

Guests live in the first. The second is for a region beside a 32-bit host whose page table or handlers stay in use.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod

from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE
from hvproto.processor.segments import (
    ACCESSED,
    CODE,
    LONG,
    PRESENT,
    READABLE,
    S_BIT,
    Segment,
    encode_descriptor,
    encode_gate,
    flat,
)

STUB_SIZE = 16


class Form(ABC):
    """How gates, stubs, the TSS and the frame of an exit look."""

    gate_size: int
    frame: struct.Struct
    """Vector, error code, instruction pointer, CS, flags, stack pointer, SS, from the lowest address up."""
    tss_size: int
    io_map_base: int
    """Offset into the TSS of the word that says where the I/O bitmap begins."""

    @abstractmethod
    def stub(self, vector: int) -> bytes:
        """Code: push what makes all frames alike, push the vector, halt, and return."""

    @staticmethod
    def cycles_to_halt(vector: int) -> int:
        """What a stub takes of virtual time until it halts: the bytes of its pushes and of HLT."""
        return 6 if vector in VECTORS_WITH_ERROR_CODE else 8

    @staticmethod
    def instructions_to_halt(vector: int) -> int:
        """... and how many instructions these are."""
        return 2 if vector in VECTORS_WITH_ERROR_CODE else 3

    @abstractmethod
    def gate(self, selector: int, offset: int, dpl: int) -> bytes:
        """An interrupt gate."""

    @abstractmethod
    def code(self, selector: int) -> Segment:
        """The stubs' code segment."""

    @abstractmethod
    def stack_fields(self, top: int, selector: int) -> tuple[tuple[int, bytes], ...]:
        """(offset into the TSS, bytes) of what says where the stack of ring 0 is; ``selector`` is its segment's."""

    @abstractmethod
    def system_descriptor(self, segment: Segment) -> bytes:
        """A TSS's descriptor, as the GDT holds it."""


class LongForm(Form):
    """Intel SDM vol. 3, 6.14 and 7.7."""

    gate_size = 16
    frame = struct.Struct("<7Q")
    tss_size = 0x68
    io_map_base = 0x66

    def stub(self, vector: int) -> bytes:
        fake_error = b"" if vector in VECTORS_WITH_ERROR_CODE else b"\x6a\x00"
        code = fake_error + b"\x68" + struct.pack("<I", vector) + b"\xf4" + b"\x48\x83\xc4\x10" + b"\x48\xcf"
        return code.ljust(STUB_SIZE, b"\xcc")

    def gate(self, selector: int, offset: int, dpl: int) -> bytes:
        return struct.pack("<QQ", encode_gate(selector, offset & 0xFFFF_FFFF, dpl=dpl), offset >> 32 & 0xFFFF_FFFF)

    def code(self, selector: int) -> Segment:
        return Segment(selector, 0, 0xFFFF_FFFF, PRESENT | S_BIT | CODE | READABLE | ACCESSED | LONG)

    def stack_fields(self, top: int, selector: int) -> tuple[tuple[int, bytes], ...]:
        return ((4, struct.pack("<Q", top & 0xFFFF_FFFF_FFFF_FFFF)),)

    def system_descriptor(self, segment: Segment) -> bytes:
        low = Segment(segment.selector, segment.base & 0xFFFF_FFFF, segment.limit, segment.attributes)
        return struct.pack("<QQ", encode_descriptor(low), segment.base >> 32 & 0xFFFF_FFFF)


class LegacyForm(Form):
    """Intel SDM vol. 3, 6.11 and 7.2."""

    gate_size = 8
    frame = struct.Struct("<7I")
    tss_size = 0x68
    io_map_base = 0x66

    def stub(self, vector: int) -> bytes:
        fake_error = b"" if vector in VECTORS_WITH_ERROR_CODE else b"\x6a\x00"
        code = fake_error + b"\x68" + struct.pack("<I", vector) + b"\xf4" + b"\x83\xc4\x08" + b"\xcf"
        return code.ljust(STUB_SIZE, b"\xcc")

    def gate(self, selector: int, offset: int, dpl: int) -> bytes:
        return struct.pack("<Q", encode_gate(selector, offset, dpl=dpl))

    def code(self, selector: int) -> Segment:
        return flat(selector, code=True, dpl=0)

    def stack_fields(self, top: int, selector: int) -> tuple[tuple[int, bytes], ...]:
        return ((4, struct.pack("<II", top, selector)),)

    def system_descriptor(self, segment: Segment) -> bytes:
        return struct.pack("<QQ", encode_descriptor(segment), 0)


LONG_FORM, LEGACY_FORM = LongForm(), LegacyForm()
