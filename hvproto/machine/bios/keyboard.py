"""INT 16h and the keyboard's interrupt: keys wait in the buffer of the BIOS data area, and before that in a queue."""

from __future__ import annotations

from collections import deque

from hvproto.errors import BadInput
from hvproto.machine.bios import data_area as area
from hvproto.machine.bios import scan_codes
from hvproto.machine.bios.call import ZERO, Call
from hvproto.machine.bios.rom import rom

_RELEASED = 0x80
_EXTENDED, _PAUSE = 0xE0, 0xE1
_RIGHT_SHIFT, _LEFT_SHIFT, _CONTROL, _ALT, _CAPS = 0x01, 0x02, 0x04, 0x08, 0x40
_HELD = {
    scan_codes.RIGHT_SHIFT: _RIGHT_SHIFT, scan_codes.LEFT_SHIFT: _LEFT_SHIFT, scan_codes.CONTROL: _CONTROL,
    scan_codes.ALT: _ALT,
}  # fmt: skip
_AFTER_PREFIX = 0x02
"""In 40:96: the last byte was E0h."""


class Keyboard:
    """What is typed ahead is ``waiting``: scan code and character of each key, as INT 16h gives them."""

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()

    def type(self, text: str) -> None:
        """Press the keys for a text. Raises BadInput for a character that a US keyboard doesn't have."""
        keys = [scan_codes.key_of(character) for character in text]
        for character, key in zip(text, keys, strict=True):
            if key is None:
                raise BadInput(f"no key gives {character!r}")
        self.waiting.extend(key for key in keys if key is not None)

    def serve(self, call: Call) -> None:
        """INT 16h: 10h to 12h are the same as 00h to 02h, since every key here is on the old keyboard too."""
        self._refill(call)
        match call.ah & 0xEF:
            case 0x00:
                key = self._take(call)
                if key is None:
                    call.processor.eip = rom().labels["wait_for_key"]
                else:
                    call.ax = key
            case 0x01:
                key = self._first(call)
                call.set_flag(ZERO, key is None)
                if key is not None:
                    call.ax = key
            case 0x02:
                call.al = call.read(area.SHIFT_FLAGS, 1)[0]
                if call.ah == 0x12:
                    call.ah = 0
            case 0x05:
                call.al = int(not self._put(call, call.cx))

    def scan_code(self, call: Call) -> None:
        """A byte of the keyboard, in AL."""
        code = call.al
        state = call.read(area.KEYBOARD_KIND, 1)[0]
        prefixed = bool(state & _AFTER_PREFIX)
        is_prefix = code in (_EXTENDED, _PAUSE)
        call.write(area.KEYBOARD_KIND, bytes((state & ~_AFTER_PREFIX | (_AFTER_PREFIX if is_prefix else 0),)))
        if is_prefix:
            return
        flags = call.read(area.SHIFT_FLAGS, 1)[0]
        key = code & ~_RELEASED
        if key in _HELD and not (prefixed and key in (scan_codes.LEFT_SHIFT, scan_codes.RIGHT_SHIFT)):
            flags = flags & ~_HELD[key] if code & _RELEASED else flags | _HELD[key]
        elif code == scan_codes.CAPS_LOCK:
            flags ^= _CAPS
        elif not code & _RELEASED:
            found = scan_codes.translated(
                key, shift=bool(flags & (_LEFT_SHIFT | _RIGHT_SHIFT)), control=bool(flags & _CONTROL),
                alt=bool(flags & _ALT), caps=bool(flags & _CAPS),
            )  # fmt: skip
            if prefixed and key == 0x35:
                found = 0xE02F  # the slash of the keypad
            if found is not None:
                self._put(call, found)
        call.write(area.SHIFT_FLAGS, bytes((flags,)))

    # -- the buffer in memory ----------------------------------------------------------------

    @staticmethod
    def _word(call: Call, address: int) -> int:
        return int.from_bytes(call.read(address, 2), "little")

    def _after(self, call: Call, place: int) -> int:
        start, end = self._word(call, area.KEY_BUFFER_START), self._word(call, area.KEY_BUFFER_END)
        return place + 2 if start <= place + 2 < end else start

    def _put(self, call: Call, key: int) -> bool:
        """Put a key behind the others; False if the buffer is full."""
        tail = self._word(call, area.KEY_TAIL)
        after = self._after(call, tail)
        if after == self._word(call, area.KEY_HEAD):
            return False
        call.write(area.DATA_AREA + tail, key.to_bytes(2, "little"))
        call.write(area.KEY_TAIL, after.to_bytes(2, "little"))
        return True

    def _refill(self, call: Call) -> None:
        while self.waiting and self._put(call, self.waiting[0]):
            self.waiting.popleft()

    def _first(self, call: Call) -> int | None:
        head = self._word(call, area.KEY_HEAD)
        if head == self._word(call, area.KEY_TAIL):
            return None
        return self._word(call, area.DATA_AREA + head)

    def _take(self, call: Call) -> int | None:
        key = self._first(call)
        if key is not None:
            after = self._after(call, self._word(call, area.KEY_HEAD))
            call.write(area.KEY_HEAD, after.to_bytes(2, "little"))
        return key
