"""INT 10h, AH=10h: the VGA's colours, by its ports (Ralf Brown's interrupt list, INT 10, AX=10xxh)."""

from __future__ import annotations

from hvproto.machine.bios.call import Call
from hvproto.machine.ports import PortBus
from hvproto.processor.segments import SegmentRegister

_ATTRIBUTE, _ATTRIBUTE_READ = 0x3C0, 0x3C1
_MASK, _READ_INDEX, _WRITE_INDEX, _COLOUR = 0x3C6, 0x3C7, 0x3C8, 0x3C9
_STATUS = (0x3BA, 0x3DA)
_DISPLAYED = 0x20
_MODE, _BORDER = 0x10, 0x11
_BLINKS = 0x08


class Palette:
    """The 16 attribute colours, the border, and the 256 of the digital-to-analogue converter."""

    def __init__(self, ports: PortBus) -> None:
        self._ports = ports

    def serve(self, call: Call) -> None:
        """Functions that aren't here change nothing."""
        memory = call.base(SegmentRegister.ES) + call.dx
        match call.al:
            case 0x00:
                self._set(call.bl & 0x1F, call.bh)
            case 0x01:
                self._set(_BORDER, call.bh)
            case 0x02:
                for index, value in enumerate(call.read(memory, 17)):
                    self._set(index if index < 16 else _BORDER, value)
            case 0x03:
                self._set(_MODE, self._get(_MODE) & ~_BLINKS | (_BLINKS if call.bl & 1 else 0))
            case 0x07:
                call.bh = self._get(call.bl & 0x1F)
            case 0x08:
                call.bh = self._get(_BORDER)
            case 0x09:
                call.write(memory, bytes(self._get(index) for index in (*range(16), _BORDER)))
            case 0x10:
                self._set_colours(call.bl, bytes((call.dh, call.ch, call.cl)))
            case 0x12:
                self._set_colours(call.bl, call.read(memory, 3 * call.cx))
            case 0x15:
                call.dh, call.ch, call.cl = self._colours(call.bl, 1)
            case 0x17:
                call.write(memory, self._colours(call.bl, call.cx))
            case 0x18:
                self._ports.write(_MASK, 1, call.bl)
            case 0x19:
                call.bl = self._ports.read(_MASK, 1)

    def _index(self, index: int) -> None:
        """Name an attribute register; reading the status makes the port take an index next."""
        for port in _STATUS:
            self._ports.read(port, 1)
        self._ports.write(_ATTRIBUTE, 1, index)

    def _set(self, index: int, value: int) -> None:
        self._index(index)
        self._ports.write(_ATTRIBUTE, 1, value)
        self._index(_DISPLAYED)

    def _get(self, index: int) -> int:
        self._index(index)
        value = self._ports.read(_ATTRIBUTE_READ, 1)
        self._index(_DISPLAYED)
        return value

    def _set_colours(self, first: int, values: bytes) -> None:
        self._ports.write(_WRITE_INDEX, 1, first)
        for value in values:
            self._ports.write(_COLOUR, 1, value)

    def _colours(self, first: int, count: int) -> bytes:
        self._ports.write(_READ_INDEX, 1, first)
        return bytes(self._ports.read(_COLOUR, 1) for _ in range(3 * count))
