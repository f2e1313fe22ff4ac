"""A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, Keyboards (101- and 102-key), 1990).

Keys that are pressed wait on the user's fingers, so to speak: the keyboard takes the next one when all codes of the one
before have gone to the program. Thus nothing is lost by typing early, not even across a reset; a keyboard that lies on
a table would have lost it. A key that is held doesn't repeat (typematic rate and delay are accepted and do
nothing), and of the scan code sets there are 1 and 2.
"""

from __future__ import annotations

from collections import deque

from hvproto.machine.us_keys import check_key, set_1_codes, set_2_codes

_ACKNOWLEDGE, _RESEND, _TEST_PASSED, _ECHO = 0xFA, 0xFE, 0xAA, 0xEE
_IDENTITY = bytes((0xAB, 0x83))
_SET_LEDS, _SELECT_SET, _ONE_KEY_TYPES = 0xED, 0xF0, (0xFB, 0xFC, 0xFD)


class Ps2Keyboard:
    """The keyboard at the other end of the controller's wire.

    ``leds`` is what the host set: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    """

    def __init__(self) -> None:
        self.leds = 0
        self.scanning = True
        self.scan_code_set = 2
        self._keys: deque[tuple[int, bool]] = deque()  # key, pressed; the first one may be on its way ...
        self._sent = 0  # ... with so many bytes of it gone
        self._responses: deque[int] = deque()
        self._argument_of: int | None = None  # the command that waits for its second byte
        self._last_sent = 0

    def key(self, key: int, pressed: bool) -> None:
        """Let a key go down or up; it is named as in `hvproto.machine.us_keys`. Raises MachineError if it isn't one."""
        check_key(key)
        self._keys.append((key, pressed))

    @property
    def waiting_keys(self) -> int:
        """How many presses and releases haven't left the keyboard completely."""
        return len(self._keys)

    @property
    def responds(self) -> bool:
        """Whether the answer to a command is ready; it goes before keys."""
        return bool(self._responses)

    def respond(self) -> int:
        """Send the next byte of the answer; there must be one."""
        return self._note(self._responses.popleft())

    def codes(self) -> bytes:
        """What the keyboard wants to send of the next key; empty if nothing. It hasn't gone until `codes_taken`."""
        if not self._keys or not (self._sent or (self.scanning and self._argument_of is None)):
            return b""
        encode = set_1_codes if self.scan_code_set == 1 else set_2_codes
        return encode(*self._keys[0])[self._sent :]

    def codes_taken(self, count: int) -> None:
        """The first ``count`` bytes of `codes` have gone."""
        codes = self.codes()
        self._note(codes[count - 1])
        self._sent += count
        if count == len(codes):
            self._keys.popleft()
            self._sent = 0

    def _note(self, byte: int) -> int:
        if byte != _RESEND:
            self._last_sent = byte
        return byte

    def receive(self, byte: int) -> None:
        """A byte from the controller: a command, or the argument of the one before."""
        self._responses.clear()
        command, self._argument_of = self._argument_of, None
        if command is not None and byte < 0x80:
            self._take_argument(command, byte)
        else:
            self._command(byte)

    def _command(self, command: int) -> None:
        match command:
            case 0xFF:
                self._defaults()
                self._responses.extend((_ACKNOWLEDGE, _TEST_PASSED))
            case 0xFE:
                self._responses.append(self._last_sent)
            case 0xF6 | 0xF5 | 0xF4:
                if command != 0xF4:
                    self._defaults()
                self.scanning = command != 0xF5
                self._responses.append(_ACKNOWLEDGE)
            case 0xF2:
                self._responses.extend((_ACKNOWLEDGE, *_IDENTITY))
            case 0xEE:
                self._responses.append(_ECHO)
            case 0xED | 0xF0 | 0xF3 | 0xFB | 0xFC | 0xFD:
                self._argument_of = command
                self._responses.append(_ACKNOWLEDGE)
            case 0xF7 | 0xF8 | 0xF9 | 0xFA:
                self._responses.append(_ACKNOWLEDGE)  # about repeating and releasing in set 3
            case _:
                self._responses.append(_RESEND)

    def _take_argument(self, command: int, argument: int) -> None:
        if command == _SET_LEDS:
            self.leds = argument & 7
        elif command == _SELECT_SET:
            if argument == 0:
                self._responses.extend((_ACKNOWLEDGE, self.scan_code_set))
                return
            if argument not in (1, 2):
                self._responses.append(_RESEND)
                return
            self.scan_code_set = argument
            self._sent = 0
        elif command in _ONE_KEY_TYPES:
            self._argument_of = command  # a list of keys, ended by the next command
        self._responses.append(_ACKNOWLEDGE)

    def _defaults(self) -> None:
        """The state after power-on. A key that has gone in part goes again, from its beginning."""
        self.leds = 0
        self.scanning = True
        self.scan_code_set = 2
        self._sent = 0
