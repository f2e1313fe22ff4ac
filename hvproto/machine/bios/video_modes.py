"""The text modes: where their memory is, and what the VGA's registers hold in them.

Values: IBM PS/2 Hardware Interface Technical Reference, Video Subsystems (1992), tables of the BIOS's modes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.machine.ports import PortBus

_COLOUR, _MONOCHROME = 0x3D4, 0x3B4
_MISC, _SEQUENCER, _GRAPHICS = 0x3C2, 0x3C4, 0x3CE
_CLOCKING, _MEMORY_MAP = 1, 6
_PROTECTED, _PROTECTION = 0x11, 0x80

_WIDE = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff")
_NARROW = bytes.fromhex("2d2728902ba0bf1f004f0d0e000000009c8e8f141f96b9a3ff")
_GREY = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f280f96b9a3ff")  # underlines in line 15


@dataclass(frozen=True, slots=True)
class TextMode:
    """``memory`` is the physical address of the first page, ``page`` the size of each in bytes.

    ``port`` is the CRT controller's index port, ``clocking`` and ``memory_map`` are registers of the sequencer and the
    graphics controller.
    """

    columns: int
    memory: int
    page: int
    port: int
    crtc: bytes
    clocking: int
    memory_map: int

    def enter(self, ports: PortBus) -> None:
        """Set the VGA's registers."""
        ports.write(_MISC, 1, 0x66 | (self.port == _COLOUR))
        for index_port, index, value in (
            (_SEQUENCER, _CLOCKING, self.clocking),
            (_GRAPHICS, _MEMORY_MAP, self.memory_map),
        ):
            _put(ports, index_port, index, value)
        _put(ports, self.port, _PROTECTED, self.crtc[_PROTECTED] & ~_PROTECTION)
        for index, value in enumerate(self.crtc):
            if index != _PROTECTED:
                _put(ports, self.port, index, value)
        _put(ports, self.port, _PROTECTED, self.crtc[_PROTECTED])


_40 = TextMode(40, 0xB8000, 0x0800, _COLOUR, _NARROW, 0x08, 0x0E)
_80 = TextMode(80, 0xB8000, 0x1000, _COLOUR, _WIDE, 0x00, 0x0E)
TEXT_MODES = {0: _40, 1: _40, 2: _80, 3: _80, 7: TextMode(80, 0xB0000, 0x1000, _MONOCHROME, _GREY, 0x00, 0x0A)}
"""By the numbers of INT 10h, AH=00h. In even ones, a composite monitor would show no colours."""


def _put(ports: PortBus, index_port: int, index: int, value: int) -> None:
    ports.write(index_port, 1, index)
    ports.write(index_port + 1, 1, value)
