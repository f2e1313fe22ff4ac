"""INT 10h in text modes (Ralf Brown's interrupt list, INT 10). There are no graphics, and no VESA BIOS."""

from __future__ import annotations

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import Call
from hvproto.machine.bios.palette import Palette
from hvproto.machine.bios.text_screen import PAGES, ROWS, TextScreen
from hvproto.machine.bios.video_modes import TEXT_MODES
from hvproto.machine.ports import PortBus
from hvproto.processor.segments import SegmentRegister

_KEEPS_MEMORY = 0x80
_COLOUR_EGA, _SWITCHES = 0x0003, 0x0009  # 256 KiB; a colour display
_VGA_COLOUR = 0x08
_GLYPHS_SEGMENT, _GLYPHS = 0xF000, 0xC000
"""Where AX=1130h says that the glyphs are: zeros, since the firmware draws nothing."""
_KNOWN_SWITCHES = range(0x30, 0x37)


class Video:
    """The display as programs in real mode ask for it."""

    def __init__(self, ports: PortBus) -> None:
        self._ports = ports
        self._palette = Palette(ports)

    def set_mode(self, call: Call, mode: int) -> None:
        """Bit 7 leaves the memory as it is. A mode that isn't a text mode changes nothing."""
        number = mode & ~_KEEPS_MEMORY
        if number in TEXT_MODES:
            TextScreen.in_mode(call, self._ports, number, clear=not mode & _KEEPS_MEMORY)

    def teletype(self, call: Call, character: int) -> None:
        """A character of the firmware's own."""
        TextScreen(call, self._ports).teletype(0, character)

    def serve(self, call: Call) -> None:
        """INT 10h; functions that aren't here change nothing, as on a card without them."""
        screen = TextScreen(call, self._ports)
        page = call.bh & (PAGES - 1)
        match call.ah:
            case 0x00:
                self.set_mode(call, call.al)
            case 0x01:
                screen.shape_cursor(call.ch, call.cl)
            case 0x02:
                screen.move_cursor(page, call.dh, call.dl)
            case 0x03:
                call.dh, call.dl = screen.cursor(page)
                call.cl, call.ch = call.read(area.CURSOR_SHAPE, 2)
            case 0x04:
                call.ah = 0  # the light pen is nowhere
            case 0x05:
                screen.show_page(call.al & (PAGES - 1))
            case 0x06 | 0x07:
                box = (call.ch, call.cl, min(call.dh, ROWS - 1), min(call.dl, screen.columns - 1))
                screen.scroll(screen.active_page, box, call.al, call.bh, up=call.ah == 0x06)
            case 0x08:
                call.al, call.ah = screen.at_cursor(page)
            case 0x09 | 0x0A:
                screen.repeat(page, call.al, call.bl if call.ah == 0x09 else None, call.cx)
            case 0x0E:
                screen.teletype(screen.active_page, call.al)
            case 0x0F:
                call.al, call.ah, call.bh = screen.mode_number, screen.columns, screen.active_page
            case 0x10:
                self._palette.serve(call)
            case 0x11 if call.al == 0x30:
                call.es, call.bp = _GLYPHS_SEGMENT, _GLYPHS
                call.cx = int.from_bytes(call.read(area.CHARACTER_HEIGHT, 2), "little")
                call.dl = call.read(area.LAST_ROW, 1)[0]
            case 0x12 if call.bl == 0x10:
                call.bx, call.cx = _COLOUR_EGA, _SWITCHES
            case 0x12 if call.bl in _KNOWN_SWITCHES:
                call.al = 0x12
            case 0x13:
                self._write_string(call, screen, page)
            case 0x1A if call.al == 0:
                call.al, call.bx = 0x1A, _VGA_COLOUR

    @staticmethod
    def _write_string(call: Call, screen: TextScreen, page: int) -> None:
        """CX characters at ES:BP, to DH, DL. Of AL, bit 0: the cursor moves; bit 1: attributes are between them."""
        each_has_attribute, moves = call.al & 2, call.al & 1
        back = screen.cursor(page)
        screen.move_cursor(page, min(call.dh, ROWS - 1), min(call.dl, screen.columns - 1))
        size = call.cx * (2 if each_has_attribute else 1)
        text = call.read(call.base(SegmentRegister.ES) + call.bp, size)
        if each_has_attribute:
            for character, attribute in zip(text[::2], text[1::2], strict=True):
                screen.teletype(page, character, attribute)
        else:
            for character in text:
                screen.teletype(page, character, call.bl)
        if not moves:
            screen.move_cursor(page, *back)
