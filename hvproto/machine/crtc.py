"""The registers of a VGA in text mode 3 (IBM PS/2 Hardware Interface Technical Reference, Video Subsystems, 1992).

Registers are stored and read back; those of the CRT controller tell `hvproto.machine.screen` where the cursor is and
where the picture begins. Nothing is drawn, and there is no beam: the status register shows retrace and display in
turn, at each read, so that a program that waits for either waits for one read.
"""

from __future__ import annotations

INDEX_PORT, DATA_PORT, STATUS_PORT = 0x3D4, 0x3D5, 0x3DA
_SEQUENCER, _GRAPHICS = 0x3C4, 0x3CE  # their index ports; the data ports follow
_DAC_READ_INDEX = 0x3C7
_MONOCHROME = {0x3B4: INDEX_PORT, 0x3B5: DATA_PORT, 0x3BA: STATUS_PORT}
_MOVING = frozenset((*_MONOCHROME, *_MONOCHROME.values()))
_COLOUR_PORTS = 0x01  # miscellaneous output
_MEMORY_MAP, _AT_B0000 = 6, 2  # graphics controller; bits 2 and 3
_NARROW = 0x27  # the last of 40 columns

# The values of mode 3 at 720 by 400 pixels, as a VGA's BIOS leaves them.
_MODE_3 = bytes.fromhex("5f4f50825581bf1f004f0d0e00000000 9c8e8f281f96b9a3ff 00000000000000")
_SEQUENCER_MODE_3 = bytes.fromhex("0300030002 000000")
_GRAPHICS_MODE_3 = bytes.fromhex("000000000010 0e00ff 00000000000000")
_ATTRIBUTE_MODE_3 = bytes.fromhex("00010203040514073839 3a3b3c3d3e3f 0c000f0800 0000000000000000000000")
_MISC_MODE_3 = 0x67  # CRT controller at 0x3d4, 28 MHz, 400 lines

_RETRACE = 0x09  # status: bit 0 not displaying, bit 3 vertical retrace


class Crtc:
    """The ports of the VGA from 0x3c0 to 0x3cf, 0x3d4, 0x3d5 and 0x3da; the last three at 0x3bx in monochrome modes.

    ``registers`` are the 32 of the CRT controller, ``palette`` the DAC's 256 colours as bytes of 0 to 63: red, green,
    blue.
    """

    ports = (*range(0x3C0, 0x3D0), *sorted(_MOVING))

    def __init__(self) -> None:
        self.registers = bytearray(_MODE_3)
        self.palette = bytearray(768)
        self._index = 0
        self._indexed = {
            _SEQUENCER: bytearray(_SEQUENCER_MODE_3),
            _GRAPHICS: bytearray(_GRAPHICS_MODE_3),
        }
        self._indices = {_SEQUENCER: 0, _GRAPHICS: 0}
        self._attributes = bytearray(_ATTRIBUTE_MODE_3)
        self._attribute_index = 0x20  # bit 5: the palette belongs to the display
        self._attribute_data_next = False
        self._misc = _MISC_MODE_3
        self._feature = 0
        self._enabled = 1
        self._dac_mask = 0xFF
        self._dac_reads = False
        self._dac_at = 0  # the next byte of the palette
        self._dac_index = 0
        self._retrace = False

    @property
    def start(self) -> int:
        """The character cell at the top left, counted from the beginning of text memory (16 bits)."""
        return self.registers[0x0C] << 8 | self.registers[0x0D]

    @property
    def cursor(self) -> int:
        """The character cell of the cursor, counted in the same way, whether it is visible or not."""
        return self.registers[0x0E] << 8 | self.registers[0x0F]

    @property
    def columns(self) -> int:
        """Characters in a line: 80, or 40."""
        return 40 if self.registers[1] == _NARROW else 80

    @property
    def text_memory(self) -> int:
        """The physical address of text memory: 0xb8000, or 0xb0000 as in monochrome modes."""
        return 0xB0000 if self._indexed[_GRAPHICS][_MEMORY_MAP] >> 2 & 3 == _AT_B0000 else 0xB8000

    def _decoded(self, port: int) -> int | None:
        """The port as in colour modes; None if the VGA doesn't answer there now."""
        if port not in _MOVING:
            return port
        if (port in _MONOCHROME) == bool(self._misc & _COLOUR_PORTS):
            return None
        return _MONOCHROME.get(port, port)

    @property
    def cursor_visible(self) -> bool:
        """Not switched off by bit 5 of register 0x0a, nor by an end line above the start line."""
        start, end = self.registers[0x0A], self.registers[0x0B]
        return not start & 0x20 and start & 0x1F <= end & 0x1F

    def read_port(self, port: int, size: int) -> int:
        match self._decoded(port):
            case None:
                return 0xFF
            case 0x3D4:
                return self._index
            case 0x3D5:
                return self.registers[self._index]
            case 0x3DA:
                self._attribute_data_next = False
                self._retrace = not self._retrace
                return _RETRACE if self._retrace else 0
            case 0x3C0:
                return self._attribute_index
            case 0x3C1:
                return self._attributes[self._attribute_index & 0x1F]
            case 0x3C2:
                return 0x10  # the switch sense: a colour monitor is connected
            case 0x3C3:
                return self._enabled
            case 0x3C4 | 0x3CE:
                return self._indices[port]
            case 0x3C5 | 0x3CF:
                registers = self._indexed[port - 1]
                return registers[self._indices[port - 1] % len(registers)]
            case 0x3C6:
                return self._dac_mask
            case 0x3C7:
                return 3 if self._dac_reads else 0
            case 0x3C8:
                return self._dac_index
            case 0x3C9:
                value = self.palette[self._dac_at]
                self._next_colour_byte()
                return value
            case 0x3CA:
                return self._feature
            case 0x3CC:
                return self._misc
        return 0  # 0x3cb and 0x3cd are reserved

    def write_port(self, port: int, size: int, value: int) -> None:
        match self._decoded(port):
            case 0x3D4:
                self._index = value & 0x1F
            case 0x3D5:
                self._write_register(value)
            case 0x3DA:
                self._feature = value
            case 0x3C0:
                self._write_attribute(value)
            case 0x3C2:
                self._misc = value
            case 0x3C3:
                self._enabled = value & 1
            case 0x3C4 | 0x3CE:
                self._indices[port] = value
            case 0x3C5 | 0x3CF:
                registers = self._indexed[port - 1]
                registers[self._indices[port - 1] % len(registers)] = value
            case 0x3C6:
                self._dac_mask = value
            case 0x3C7 | 0x3C8:
                self._dac_reads = port == _DAC_READ_INDEX
                self._dac_index = value
                self._dac_at = 3 * value
            case 0x3C9:
                self.palette[self._dac_at] = value & 0x3F
                self._next_colour_byte()

    def _write_register(self, value: int) -> None:
        if self._index < 8 and self.registers[0x11] & 0x80:
            # Bit 7 of register 0x11 protects the timing; only bit 4 of register 7 (line compare) can be written.
            if self._index == 7:
                self.registers[7] = self.registers[7] & ~0x10 | value & 0x10
            return
        self.registers[self._index] = value

    def _write_attribute(self, value: int) -> None:
        """Index and data go through one port, in turn; a read of the status makes the next one an index."""
        if self._attribute_data_next:
            self._attributes[self._attribute_index & 0x1F] = value
        else:
            self._attribute_index = value & 0x3F
        self._attribute_data_next = not self._attribute_data_next

    def _next_colour_byte(self) -> None:
        self._dac_at = (self._dac_at + 1) % len(self.palette)
        if self._dac_at % 3 == 0:
            self._dac_index = self._dac_at // 3
