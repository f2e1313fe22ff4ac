"""What stands on the screen of a VGA in text mode: the cells at 0xb8000 (0xb0000 in mode 7), read as text.

A cell is two bytes: a character of code page 437, and its attribute (bits 0 to 3 the foreground colour, 4 to 6 the
background, 7 blinking). Source: IBM PS/2 Hardware Interface Technical Reference, Video Subsystems, 1992.
"""

from __future__ import annotations

from hvproto.machine.crtc import Crtc
from hvproto.processor.linear_memory import PhysicalMemory

TEXT_MEMORY = 0xB8000
TEXT_MEMORY_SIZE = 0x8000
ROWS, COLUMNS = 25, 80

# Codes 1 to 31 and 127 have glyphs on the screen; Python's codec takes them for control characters.
_LOW_GLYPHS = "☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_GLYPHS = " " + _LOW_GLYPHS + bytes(range(32, 127)).decode("ascii") + "⌂" + bytes(range(128, 255)).decode("cp437") + " "


class Screen:
    """The text screen in ``ram``, the machine's memory from physical address 0, of which 0xb0000 to 0xbffff are used.

    With a `Crtc`, the picture begins where its start address says, has as many columns as it says, and there is a
    cursor; without, it begins at 0xb8000 and has 80 columns. Every property is read anew.
    """

    def __init__(self, ram: PhysicalMemory, crtc: Crtc | None = None) -> None:
        self._ram = ram
        self._crtc = crtc

    @property
    def columns(self) -> int:
        """80, or 40."""
        return COLUMNS if self._crtc is None else self._crtc.columns

    @property
    def lines(self) -> list[str]:
        """The 25 lines, without blanks at their ends."""
        characters = self._picture()[::2]
        columns = self.columns
        rows = (characters[at : at + columns] for at in range(0, ROWS * columns, columns))
        return ["".join(_GLYPHS[code] for code in row).rstrip() for row in rows]

    @property
    def text(self) -> str:
        """The 25 lines with a newline between them."""
        return "\n".join(self.lines)

    @property
    def attributes(self) -> list[bytes]:
        """The attributes of the 25 lines, a byte for each column."""
        attributes, columns = self._picture()[1::2], self.columns
        return [attributes[at : at + columns] for at in range(0, ROWS * columns, columns)]

    @property
    def cursor(self) -> tuple[int, int] | None:
        """Line and column of the cursor, from 0; None if it is off, elsewhere, or there is no CRTC."""
        crtc = self._crtc
        if crtc is None or not crtc.cursor_visible:
            return None
        row, column = divmod(crtc.cursor - crtc.start, crtc.columns)
        return (row, column) if 0 <= row < ROWS else None

    def find(self, text: str) -> tuple[int, int] | None:
        """Line and column of the first place where ``text`` stands within one line; None if nowhere."""
        for row, line in enumerate(self.lines):
            column = line.find(text)
            if column >= 0:
                return row, column
        return None

    def _picture(self) -> bytes:
        """The bytes of the visible cells; the memory goes on at its beginning after its end."""
        begin = 0 if self._crtc is None else 2 * self._crtc.start % TEXT_MEMORY_SIZE
        size = 2 * ROWS * self.columns
        memory = TEXT_MEMORY if self._crtc is None else self._crtc.text_memory
        if memory + TEXT_MEMORY_SIZE > len(self._ram):
            return b"\0" * size
        cells = bytes(self._ram[memory : memory + TEXT_MEMORY_SIZE])
        return (cells[begin : begin + size] + cells[:size])[:size]
