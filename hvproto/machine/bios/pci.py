"""INT 1Ah, AH=B1h: the PCI BIOS, in real mode (PCI BIOS Specification 2.1). Bus 0 is all there is."""

from __future__ import annotations

from collections.abc import Iterator

from hvproto.machine.bios.call import CARRY, Call
from hvproto.machine.ports import PortBus

_SIGNATURE = 0x20494350
_ADDRESS, _DATA = 0xCF8, 0xCFC
_ENABLE = 1 << 31
_OK, _UNSUPPORTED, _BAD_VENDOR, _NOT_FOUND, _BAD_REGISTER = 0x00, 0x81, 0x83, 0x86, 0x87
_MECHANISM_1, _VERSION = 0x01, 0x0210
_ABSENT = 0xFFFF
_MULTIPLE_FUNCTIONS = 0x80


class PciService:
    """All by mechanism #1, through the ports."""

    def __init__(self, ports: PortBus) -> None:
        self._ports = ports

    def serve(self, call: Call) -> None:
        """The status comes back in AH, and carry says that it isn't 0."""
        status = self._perform(call)
        call.ah = status
        call.set_flag(CARRY, status != _OK)

    def _perform(self, call: Call) -> int:
        function = call.al
        match function:
            case 0x01:
                call.edx, call.al, call.bx, call.cl = _SIGNATURE, _MECHANISM_1, _VERSION, 0
                return _OK
            case 0x02:
                if call.dx == _ABSENT:
                    return _BAD_VENDOR
                return self._find(call, 0x00, call.cx << 16 | call.dx, 0xFFFF_FFFF)
            case 0x03:
                return self._find(call, 0x08, (call.ecx & 0xFF_FFFF) << 8, 0xFFFF_FF00)
            case _ if 0x08 <= function <= 0x0D:
                return self._access(call, 1 << (function - 0x08) % 3, writes=function >= 0x0B)
        return _UNSUPPORTED

    def _find(self, call: Call, offset: int, value: int, mask: int) -> int:
        """The SI-th function, from 0, that has the value there."""
        matches = [place for place in self._functions() if self._read(place, offset, 4) & mask == value]
        if call.si >= len(matches):
            return _NOT_FOUND
        call.bx = matches[call.si]
        return _OK

    def _access(self, call: Call, size: int, *, writes: bool) -> int:
        place, offset = call.bx, call.di
        if offset % size or offset > 0xFF:
            return _BAD_REGISTER
        mask = (1 << 8 * size) - 1
        if writes:
            self._select(place, offset)
            self._ports.write(_DATA + offset % 4, size, call.ecx & mask)
        else:
            call.ecx = call.ecx & ~mask | self._read(place, offset, size)
        return _OK

    def _functions(self) -> Iterator[int]:
        """Device in bits 3 to 7, function in bits 0 to 2, of all that are there."""
        for device in range(32):
            several = self._read(device << 3, 0x0E, 1) & _MULTIPLE_FUNCTIONS
            for place in range(device << 3, (device << 3) + (8 if several else 1)):
                if self._read(place, 0, 2) != _ABSENT:
                    yield place

    def _select(self, place: int, offset: int) -> None:
        self._ports.write(_ADDRESS, 4, _ENABLE | place << 8 | offset & 0xFC)

    def _read(self, place: int, offset: int, size: int) -> int:
        self._select(place, offset)
        return self._ports.read(_DATA + offset % 4, size)
