"""INT 9, the keyboard's interrupt: what each byte of scan code set 1 does to the flags and the key buffer.

The bits are those of the IBM PS/2 and PC BIOS Interface Technical Reference, section "BIOS data area", 40:17 to 40:19,
40:71, 40:96 and 40:97.
"""

from __future__ import annotations

from enum import IntEnum

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios import key_buffer
from hvproto.machine.bios import scan_codes as keys
from hvproto.machine.bios.call import Call
from hvproto.machine.ports import PortBus

_RELEASED, _EXTENDED, _PAUSE_PREFIX = 0x80, 0xE0, 0xE1
_ACKNOWLEDGE, _RESEND = 0xFA, 0xFE
_DATA, _SET_LEDS = 0x60, 0xED

# 40:17
_RIGHT_SHIFT, _LEFT_SHIFT, _CONTROL, _ALT, _SCROLL, _NUM, _CAPS, _INSERT = (1 << bit for bit in range(8))
# 40:18
_LEFT_CONTROL, _LEFT_ALT, _SYSTEM_REQUEST, _PAUSED = 0x01, 0x02, 0x04, 0x08
# 40:96
_AFTER_E1, _AFTER_E0, _RIGHT_CONTROL, _RIGHT_ALT = 0x01, 0x02, 0x04, 0x08

_SHIFTS = {keys.RIGHT_SHIFT: _RIGHT_SHIFT, keys.LEFT_SHIFT: _LEFT_SHIFT}
_LOCKS = {keys.SCROLL_LOCK: _SCROLL, keys.NUM_LOCK: _NUM, keys.CAPS_LOCK: _CAPS}
_LIGHTS = 4  # Scroll, Num and Caps Lock are the bits from here on in 40:17, from 0 on for the keyboard


class Action(IntEnum):
    """What the handler has yet to do, in AH: `rom.asm`, `key`."""

    NOTHING = 0
    PRINT_SCREEN = 1
    BREAK = 2
    PAUSE = 3
    REQUEST = 4
    REQUEST_ENDS = 5
    RESTART = 6


class KeyInterrupt:
    """The flags of one byte's service, in memory before and after it."""

    def __init__(self, call: Call, ports: PortBus) -> None:
        self._call = call
        self._ports = ports
        self._flags, self._flags_2, self._typed = call.read(area.SHIFT_FLAGS, 3)
        self._kind, self._leds = call.read(area.KEYBOARD_KIND, 2)

    def serve(self) -> None:
        """A byte of the keyboard, in AL; AH says afterwards what is left to be done."""
        call = self._call
        code = call.al
        call.ah = Action.NOTHING
        if code in (_ACKNOWLEDGE, _RESEND):
            return
        if code in (_EXTENDED, _PAUSE_PREFIX):
            self._kind |= _AFTER_E0 if code == _EXTENDED else _AFTER_E1
        elif self._kind & _AFTER_E1 and code & ~_RELEASED == keys.CONTROL:
            pass  # Pause is E1h, Ctrl, Num Lock
        else:
            prefixed, pause = bool(self._kind & _AFTER_E0), bool(self._kind & _AFTER_E1)
            self._kind &= ~(_AFTER_E0 | _AFTER_E1)
            call.ah = self._key(code & ~_RELEASED, not code & _RELEASED, prefixed, pause)
        self._show_locks()
        call.write(area.SHIFT_FLAGS, bytes((self._flags, self._flags_2, self._typed)))
        call.write(area.KEYBOARD_KIND, bytes((self._kind, self._leds)))

    def _key(self, key: int, pressed: bool, prefixed: bool, pause: bool) -> Action:
        control, alt = bool(self._flags & _CONTROL), bool(self._flags & _ALT)
        if key in _SHIFTS:
            if not prefixed:  # with a prefix, it only cancels a Shift that is held
                self._flags = _with(self._flags, _SHIFTS[key], pressed)
        elif key in (keys.CONTROL, keys.ALT):
            self._hold(key, pressed, prefixed)
        elif key == keys.SYSTEM_REQUEST:
            self._flags_2 = _with(self._flags_2, _SYSTEM_REQUEST, pressed)
            return Action.REQUEST if pressed else Action.REQUEST_ENDS
        elif pressed and (pause or (key == keys.NUM_LOCK and control)):
            self._flags_2 |= _PAUSED
            return Action.PAUSE
        elif key in _LOCKS and not prefixed and not pause:
            self._lock(_LOCKS[key], pressed)
        elif pressed and key == keys.SCROLL_LOCK and prefixed:
            return self._break()
        elif pressed and key == keys.PRINT_SCREEN and prefixed and not control:
            return Action.PRINT_SCREEN
        elif pressed and key == keys.DELETE and control and alt:
            return Action.RESTART
        elif key == keys.INSERT:
            self._insert(pressed, prefixed)
        elif pressed:
            self._type(key, prefixed)
        return Action.NOTHING

    # -- keys that are held, and locks -------------------------------------------------------

    def _hold(self, key: int, pressed: bool, right: bool) -> None:
        """Ctrl or Alt; in 40:17 it is held as long as one of the two is."""
        control = key == keys.CONTROL
        if right:
            self._kind = _with(self._kind, _RIGHT_CONTROL if control else _RIGHT_ALT, pressed)
        else:
            self._flags_2 = _with(self._flags_2, _LEFT_CONTROL if control else _LEFT_ALT, pressed)
        self._flags = _with(self._flags, _CONTROL, bool(self._flags_2 & _LEFT_CONTROL or self._kind & _RIGHT_CONTROL))
        self._flags = _with(self._flags, _ALT, bool(self._flags_2 & _LEFT_ALT or self._kind & _RIGHT_ALT))
        if not control and not pressed and self._typed:
            self._put(self._typed)  # the character whose code was typed on the keypad
            self._typed = 0

    def _lock(self, lock: int, pressed: bool) -> None:
        """It changes as the key goes down, but not again while it is held: then the keyboard repeats it."""
        if pressed and not self._flags_2 & lock:
            self._flags ^= lock
        self._flags_2 = _with(self._flags_2, lock, pressed)

    def _insert(self, pressed: bool, prefixed: bool) -> None:
        plain = not self._flags & (_CONTROL | _ALT)
        moves = prefixed or bool(self._flags & _NUM) == bool(self._flags & (_LEFT_SHIFT | _RIGHT_SHIFT))
        if plain and moves:
            self._lock(_INSERT, pressed)
        if pressed:
            self._type(keys.INSERT, prefixed)

    def _show_locks(self) -> None:
        """Tell the keyboard which lights are to be on; it answers each byte at once."""
        leds = self._flags >> _LIGHTS & 7
        if leds != self._leds & 7:
            self._leds = self._leds & ~7 | leds
            for byte in (_SET_LEDS, leds):
                self._ports.write(_DATA, 1, byte)
                self._ports.read(_DATA, 1)

    # -- the buffer --------------------------------------------------------------------------

    def _type(self, key: int, prefixed: bool) -> None:
        if self._flags_2 & _PAUSED:
            self._flags_2 &= ~_PAUSED  # the key that ends the pause does nothing else
            return
        digit = keys.KEYPAD.get(key, "")
        if self._flags & _ALT and not prefixed and digit.isdigit():
            self._typed = (10 * self._typed + int(digit)) & 0xFF
            return
        word = keys.translated(
            key, prefixed=prefixed, shift=bool(self._flags & (_LEFT_SHIFT | _RIGHT_SHIFT)),
            control=bool(self._flags & _CONTROL), alt=bool(self._flags & _ALT), caps=bool(self._flags & _CAPS),
            num=bool(self._flags & _NUM),
        )  # fmt: skip
        if key == keys.PRINT_SCREEN and prefixed:
            word = 0x7200  # with Ctrl
        if word is not None:
            self._put(word)

    def _put(self, word: int) -> None:
        key_buffer.put(self._call, word)  # what finds it full is lost

    def _break(self) -> Action:
        key_buffer.clear(self._call)
        self._put(0)
        self._call.write(area.BREAK_FLAG, b"\x80")
        self._flags_2 &= ~_PAUSED
        return Action.BREAK


def _with(value: int, bit: int, on: bool) -> int:
    return value | bit if on else value & ~bit
