"""The text screen of INT 10h: its cells and cursors in memory, as the BIOS data area describes them."""

from __future__ import annotations

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import Call
from hvproto.machine.bios.video_modes import TEXT_MODES
from hvproto.machine.ports import PortBus

ROWS = 25
PAGES = 8
_BLANK = b"\x20\x07"
_CURSOR_SHAPE = 0x0607
_BELL, _BACKSPACE, _LINE_FEED, _RETURN = 7, 8, 10, 13
_START_HIGH, _SHAPE, _CURSOR_HIGH = 0x0C, 0x0A, 0x0E
_DEFAULT_MODE = 3

Box = tuple[int, int, int, int]
"""Top, left, bottom, right: rows and columns from 0, all within."""


class TextScreen:
    """One call's view of the screen: nothing of it is kept elsewhere than in memory and the VGA."""

    def __init__(self, call: Call, ports: PortBus) -> None:
        self._call = call
        self._ports = ports
        self.mode_number = call.read(area.VIDEO_MODE, 1)[0]
        self._mode = TEXT_MODES.get(self.mode_number, TEXT_MODES[_DEFAULT_MODE])
        self.columns = self._mode.columns

    @classmethod
    def in_mode(cls, call: Call, ports: PortBus, number: int, *, clear: bool) -> TextScreen:
        """Switch to a text mode: cursors at the top left, page 0 shown."""
        mode = TEXT_MODES[number]
        call.write(area.VIDEO_MODE, bytes((number,)))
        for address, value in (
            (area.COLUMNS, mode.columns), (area.PAGE_SIZE, mode.page), (area.CURSOR_SHAPE, _CURSOR_SHAPE),
            (area.CRTC_PORT, mode.port),
        ):  # fmt: skip
            call.write(address, value.to_bytes(2, "little"))
        call.write(area.CURSORS, bytes(2 * PAGES))
        mode.enter(ports)
        if clear:
            call.write(mode.memory, _BLANK * (PAGES * mode.page // 2))
        screen = cls(call, ports)
        screen.show_page(0)
        return screen

    # -- pages and the cursor ----------------------------------------------------------------

    @property
    def active_page(self) -> int:
        return self._call.read(area.ACTIVE_PAGE, 1)[0] & (PAGES - 1)

    def show_page(self, page: int) -> None:
        start = page * self._mode.page
        self._call.write(area.ACTIVE_PAGE, bytes((page,)))
        self._call.write(area.PAGE_START, start.to_bytes(2, "little"))
        self._set_crtc_word(_START_HIGH, start // 2)
        self.move_cursor(page, *self.cursor(page))

    def cursor(self, page: int) -> tuple[int, int]:
        """Row and column from 0; never outside the screen."""
        column, row = self._call.read(area.CURSORS + 2 * page, 2)
        return min(row, ROWS - 1), min(column, self.columns - 1)

    def move_cursor(self, page: int, row: int, column: int) -> None:
        self._call.write(area.CURSORS + 2 * page, bytes((column, row)))
        if page == self.active_page:
            self._set_crtc_word(_CURSOR_HIGH, (page * self._mode.page // 2 + row * self.columns + column) & 0xFFFF)

    def shape_cursor(self, first_line: int, last_line: int) -> None:
        """Bit 5 of the first line switches the cursor off."""
        self._call.write(area.CURSOR_SHAPE, bytes((last_line, first_line)))
        self._set_crtc_word(_SHAPE, first_line << 8 | last_line)

    def _set_crtc_word(self, index: int, value: int) -> None:
        for register, byte in ((index, value >> 8), (index + 1, value & 0xFF)):
            self._ports.write(self._mode.port, 1, register)
            self._ports.write(self._mode.port + 1, 1, byte)

    # -- characters --------------------------------------------------------------------------

    def _cell(self, page: int, row: int, column: int) -> int:
        return self._mode.memory + page * self._mode.page + 2 * (row * self.columns + column)

    def at_cursor(self, page: int) -> tuple[int, int]:
        """Character and attribute."""
        character, attribute = self._call.read(self._cell(page, *self.cursor(page)), 2)
        return character, attribute

    def repeat(self, page: int, character: int, attribute: int | None, count: int) -> None:
        """The character so many times from the cursor on, which stays; without an attribute, the old ones stay too."""
        at, end = self._cell(page, *self.cursor(page)), self._cell(page, ROWS, 0)
        for cell in range(at, min(at + 2 * count, end), 2):
            self._call.write(cell, bytes((character,) if attribute is None else (character, attribute)))

    def teletype(self, page: int, character: int, attribute: int | None = None) -> None:
        """A character at the cursor, which moves on; control characters act, and the last line scrolls."""
        row, column = self.cursor(page)
        if character == _BELL:
            return
        if character == _BACKSPACE:
            column = max(0, column - 1)
        elif character == _RETURN:
            column = 0
        elif character == _LINE_FEED:
            row += 1
        else:
            at = self._cell(page, row, column)
            self._call.write(at, bytes((character,) if attribute is None else (character, attribute)))
            column += 1
        if column == self.columns:
            row, column = row + 1, 0
        if row == ROWS:
            row -= 1
            colour = self._call.read(self._cell(page, row, 0) + 1, 1)[0]
            self.scroll(page, (0, 0, ROWS - 1, self.columns - 1), 1, colour, up=True)
        self.move_cursor(page, row, column)

    def scroll(self, page: int, box: Box, lines: int, colour: int, *, up: bool) -> None:
        """Move the lines of a box; 0 or too many lines clear it."""
        top, left, bottom, right = box
        if top > bottom or left > right:
            return
        width = 2 * (right - left + 1)
        rows = [self._call.read(self._cell(page, row, left), width) for row in range(top, bottom + 1)]
        count = lines if 0 < lines <= len(rows) else len(rows)
        blank = [bytes((0x20, colour)) * (width // 2)] * count
        rows = rows[count:] + blank if up else blank + rows[: len(rows) - count]
        for offset, data in enumerate(rows):
            self._call.write(self._cell(page, top + offset, left), data)
