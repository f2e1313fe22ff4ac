"""INT 10h in text mode 3: 80 by 25 characters at B800:0000 (Ralf Brown's interrupt list, INT 10)."""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import Call
from hvproto.processor.segments import SegmentRegister

SCREEN = 0xB8000
COLUMNS, ROWS = 80, 25
PAGES = 8
_PAGE_BYTES = 0x1000
_TEXT_MODE = 3
_BLANK = 0x0720
_DEFAULT_ATTRIBUTE = 0x07
_BELL, _BACKSPACE, _LINE_FEED, _RETURN = 7, 8, 10, 13
_CRTC_START_HIGH, _CRTC_CURSOR_HIGH = 0x0C, 0x0E

WriteCrtc = Callable[[int, int], None]
"""(index, value): sets a register of the display controller, if there is one."""


class Video:
    """The text screen and its cursors, which live in memory: nothing of it is kept here."""

    def __init__(self, write_crtc: WriteCrtc) -> None:
        self._write_crtc = write_crtc

    def serve(self, call: Call) -> None:
        """INT 10h; functions that aren't here change nothing, as on a card without them."""
        page = call.bh & (PAGES - 1)
        match call.ah:
            case 0x00:
                self.set_mode(call, call.al)
            case 0x01:
                call.write(area.CURSOR_SHAPE, bytes((call.cl, call.ch)))
                self._write_crtc(0x0A, call.ch)
                self._write_crtc(0x0B, call.cl)
            case 0x02:
                self.move_cursor(call, page, call.dh, call.dl)
            case 0x03:
                call.dh, call.dl = self.cursor(call, page)
                call.cl, call.ch = call.read(area.CURSOR_SHAPE, 2)
            case 0x05:
                self._show_page(call, call.al & (PAGES - 1))
            case 0x06 | 0x07:
                box = (call.ch, call.cl, min(call.dh, ROWS - 1), min(call.dl, COLUMNS - 1))
                self.scroll(call, self._active(call), box, call.al, call.bh, up=call.ah == 0x06)
            case 0x08:
                call.al, call.ah = call.read(self._cell(page, *self.cursor(call, page)), 2)
            case 0x09 | 0x0A:
                self._repeat(call, page, call.bl if call.ah == 0x09 else None)
            case 0x0E:
                self.teletype(call, self._active(call), call.al)
            case 0x0F:
                call.al, call.ah, call.bh = _TEXT_MODE, COLUMNS, self._active(call)
            case 0x12 if call.bl == 0x10:
                call.bx, call.cx = 0x0003, 0x0009  # colour, 256 KiB
            case 0x13:
                self._write_string(call, page)
            case 0x1A if call.al == 0:
                call.al, call.bx = 0x1A, 0x0008  # a VGA with a colour screen

    def set_mode(self, call: Call, mode: int) -> None:
        """Text mode 3, whatever is asked for: it clears the screen unless bit 7 is set."""
        call.write(area.VIDEO_MODE, bytes((_TEXT_MODE,)))
        call.write(area.CURSORS, bytes(2 * PAGES))
        if not mode & 0x80:
            call.write(SCREEN, _BLANK.to_bytes(2, "little") * (PAGES * _PAGE_BYTES // 2))
        self._show_page(call, 0)

    # -- the cursor --------------------------------------------------------------------------

    def cursor(self, call: Call, page: int) -> tuple[int, int]:
        """Row and column from 0; never outside the screen."""
        column, row = call.read(area.CURSORS + 2 * page, 2)
        return min(row, ROWS - 1), min(column, COLUMNS - 1)

    def move_cursor(self, call: Call, page: int, row: int, column: int) -> None:
        call.write(area.CURSORS + 2 * page, bytes((column, row)))
        if page == self._active(call):
            self._show(_CRTC_CURSOR_HIGH, page * _PAGE_BYTES // 2 + row * COLUMNS + column)

    def _active(self, call: Call) -> int:
        return call.read(area.ACTIVE_PAGE, 1)[0] & (PAGES - 1)

    def _show_page(self, call: Call, page: int) -> None:
        call.write(area.ACTIVE_PAGE, bytes((page,)))
        call.write(area.PAGE_START, (page * _PAGE_BYTES).to_bytes(2, "little"))
        self._show(_CRTC_START_HIGH, page * _PAGE_BYTES // 2)
        self.move_cursor(call, page, *self.cursor(call, page))

    def _show(self, index: int, value: int) -> None:
        self._write_crtc(index, value >> 8 & 0xFF)
        self._write_crtc(index + 1, value & 0xFF)

    # -- characters --------------------------------------------------------------------------

    @staticmethod
    def _cell(page: int, row: int, column: int) -> int:
        return SCREEN + page * _PAGE_BYTES + 2 * (row * COLUMNS + column)

    def _repeat(self, call: Call, page: int, attribute: int | None) -> None:
        """The character in AL, CX times from the cursor on, which stays; the old attributes stay without a new one."""
        at = self._cell(page, *self.cursor(call, page))
        end = self._cell(page, ROWS, 0)
        for cell in range(at, min(at + 2 * call.cx, end), 2):
            call.write(cell, bytes((call.al,) if attribute is None else (call.al, attribute)))

    def teletype(self, call: Call, page: int, character: int, attribute: int | None = None) -> None:
        """A character at the cursor, which moves on; control characters act, and the last line scrolls."""
        row, column = self.cursor(call, page)
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
            call.write(at, bytes((character,) if attribute is None else (character, attribute)))
            column += 1
        if column == COLUMNS:
            row, column = row + 1, 0
        if row == ROWS:
            row -= 1
            colour = call.read(self._cell(page, row, 0) + 1, 1)[0]
            self.scroll(call, page, (0, 0, ROWS - 1, COLUMNS - 1), 1, colour, up=True)
        self.move_cursor(call, page, row, column)

    def scroll(
        self, call: Call, page: int, box: tuple[int, int, int, int], lines: int, colour: int, *, up: bool
    ) -> None:
        """Move the lines of a box (top, left, bottom, right, all inclusive); 0 or too many lines clear it."""
        top, left, bottom, right = box
        if top > bottom or left > right:
            return
        width = 2 * (right - left + 1)
        rows = [call.read(self._cell(page, row, left), width) for row in range(top, bottom + 1)]
        count = lines if 0 < lines <= len(rows) else len(rows)
        blank = [bytes((0x20, colour)) * (width // 2)] * count
        rows = rows[count:] + blank if up else blank + rows[: len(rows) - count]
        for offset, data in enumerate(rows):
            call.write(self._cell(page, top + offset, left), data)

    def _write_string(self, call: Call, page: int) -> None:
        """CX characters at ES:BP, to DH, DL. Of AL, bit 0: the cursor moves; bit 1: attributes are between them."""
        each_has_attribute, moves = call.al & 2, call.al & 1
        back = self.cursor(call, page)
        self.move_cursor(call, page, min(call.dh, ROWS - 1), min(call.dl, COLUMNS - 1))
        size = call.cx * (2 if each_has_attribute else 1)
        text = call.read(call.base(SegmentRegister.ES) + call.bp, size)
        if each_has_attribute:
            for character, attribute in zip(text[::2], text[1::2], strict=True):
                self.teletype(call, page, character, attribute)
        else:
            for character in text:
                self.teletype(call, page, character, call.bl)
        if not moves:
            self.move_cursor(call, page, *back)
