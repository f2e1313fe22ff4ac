"""One call of a BIOS service: the caller's registers, flags and memory."""

from __future__ import annotations

from typing import Any

from hvproto.processor.cpu import Cpu
from hvproto.processor.segments import SegmentRegister

CARRY, ZERO = 0x0001, 0x0040
_FLAGS_OFFSET = 4
"""Where the caller's FLAGS are in what INT pushed: above IP and CS."""


class _Register:
    """``bits`` of a general register from bit ``shift`` on; writing leaves the others alone."""

    def __init__(self, index: int, bits: int, shift: int = 0) -> None:
        self._index, self._shift = index, shift
        self._mask = (1 << bits) - 1

    def __get__(self, call: Call, _owner: Any) -> int:
        return call.processor.gpr(self._index) >> self._shift & self._mask

    def __set__(self, call: Call, value: int) -> None:
        before = call.processor.gpr(self._index) & ~(self._mask << self._shift)
        call.processor.set_gpr(self._index, before | (value & self._mask) << self._shift)


class Call:
    """The processor, in real mode, at a service's entry. Addresses are physical, sizes in bytes."""

    eax, ecx, edx, ebx = (_Register(index, 32) for index in range(4))
    ax, cx, dx, bx = (_Register(index, 16) for index in range(4))
    al, cl, dl, bl = (_Register(index, 8) for index in range(4))
    ah, ch, dh, bh = (_Register(index, 8, 8) for index in range(4))
    esp, ebp, esi, edi = (_Register(index, 32) for index in range(4, 8))
    bp, si, di = (_Register(index, 16) for index in range(5, 8))

    def __init__(self, processor: Cpu) -> None:
        self.processor = processor
        self._ram = processor.ram

    def base(self, register: SegmentRegister) -> int:
        """Where the segment of a segment register begins."""
        return self.processor.segment(register).base

    @property
    def es(self) -> int:
        return self.processor.segment(SegmentRegister.ES).selector

    @es.setter
    def es(self, selector: int) -> None:
        before = self.processor.segment(SegmentRegister.ES)
        segments = {SegmentRegister.ES: type(before)(selector, selector << 4, before.limit, before.attributes)}
        self.processor.set_segments(segments)

    @property
    def flags_address(self) -> int:
        stack = self.processor.stack
        return stack.base + (self.esp + _FLAGS_OFFSET & 0xFFFF)

    def set_flag(self, flag: int, on: bool) -> None:
        """Set or clear CARRY or ZERO in the FLAGS that the caller gets back."""
        at = self.flags_address
        flags = int.from_bytes(self.read(at, 2), "little")
        self.write(at, (flags | flag if on else flags & ~flag).to_bytes(2, "little"))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of RAM; zeros where there is none."""
        return bytes(self._ram[address : address + size]).ljust(size, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Bytes to RAM; those beyond its end are lost."""
        room = max(0, len(self._ram) - address)
        self._ram[address : address + len(data)] = data[:room] if room < len(data) else data

    def write_code(self, address: int, data: bytes) -> None:
        """Bytes that may be code: what the processor has translated of the old ones is forgotten."""
        self.write(address, data)
        self.processor.forget_code()
