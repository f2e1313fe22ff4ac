"""What a key gives to a program that asks INT 16h: its scan code, or another number, above a character.

The words are those that the BIOS keeps in its buffer (IBM PS/2 and PC BIOS Interface Technical Reference, INT 16h,
tables of extended codes). Two low bytes mark what only the keyboard of 101 keys has: E0h a key that the old keyboard
had elsewhere, F0h a combination that the old BIOS ignored.
"""

from __future__ import annotations

from hvproto.machine.us_keys import BACKSPACE, ENTER, ESCAPE, ROWS, TAB

RIGHT_SHIFT, LEFT_SHIFT, CONTROL, ALT = 0x36, 0x2A, 0x1D, 0x38
CAPS_LOCK, NUM_LOCK, SCROLL_LOCK, INSERT, DELETE = 0x3A, 0x45, 0x46, 0x52, 0x53
PRINT_SCREEN, SYSTEM_REQUEST = 0x37, 0x54
GREY, NEW = 0xE0, 0xF0

KEYPAD = dict(enumerate("789-456+1230.", 0x47))
"""With Num Lock; without it, all but minus and plus move the cursor."""
_SLASH, _STAR, _MINUS, _PLUS, _FIVE, _SPACE = 0x35, 0x37, 0x4A, 0x4E, 0x4C, 0x39
_102ND = 0x56
_PLAIN = {first + at: key for first, keys, _ in ROWS for at, key in enumerate(keys)} | {_102ND: "\\"}
_SHIFTED = {first + at: key for first, _, keys in ROWS for at, key in enumerate(keys)} | {_102ND: "|"}

_CONTROL_KEYPAD = dict(zip(KEYPAD, bytes.fromhex("778d848e738f749075917692 93"), strict=True))
_ALT_KEYPAD_STEP = 0x50
_FUNCTION = {key: key for key in range(0x3B, 0x45)} | {0x57: 0x85, 0x58: 0x86}
# Plain, with Shift, Ctrl and Alt, in this order.
_FUNCTION_STEPS, _LATE_FUNCTION_STEPS = (0, 0x19, 0x23, 0x2D), (0, 2, 4, 6)
_OTHERS = {
    ESCAPE: (0x011B, 0x011B, 0x011B, 0x01F0),
    BACKSPACE: (0x0E08, 0x0E08, 0x0E7F, 0x0EF0),
    TAB: (0x0F09, 0x0F00, 0x9400, 0xA500),
    ENTER: (0x1C0D, 0x1C0D, 0x1C0A, 0x1CF0),
    _SPACE: (0x3920, 0x3920, 0x3920, 0x3920),
    _STAR: (0x372A, 0x372A, 0x9600, 0x37F0),
    _MINUS: (0x4A2D, 0x4A2D, 0x8E00, 0x4AF0),
    _PLUS: (0x4E2B, 0x4E2B, 0x9000, 0x4EF0),
}
_OTHERS_PREFIXED = {ENTER: (0xE00D, 0xE00D, 0xE00A, 0xA600), _SLASH: (0xE02F, 0xE02F, 0x9500, 0xA400)}
_CONTROL_CHARACTERS = {0x03: 0x00, 0x07: 0x1E, 0x0C: 0x1F, 0x1A: 0x1B, 0x1B: 0x1D, 0x2B: 0x1C, _102ND: 0x1C}
_DIGITS = range(0x02, 0x0E)
_ALT_DIGIT_STEP = 0x76
_LAST_OLD = 0x84
"""Above it, scan codes are new: the old functions of INT 16h don't give them."""


def translated(
    key: int, *, prefixed: bool, shift: bool, control: bool, alt: bool, caps: bool = False, num: bool = False
) -> int | None:
    """The word for a make code of set 1 (``prefixed``: with E0h before it), None if the key gives nothing.

    >>> hex(translated(0x1E, prefixed=False, shift=True, control=False, alt=False) or 0)
    '0x1e41'
    """
    held = 3 if alt else 2 if control else 1 if shift else 0
    others = _OTHERS_PREFIXED if prefixed else _OTHERS
    if key in others:
        return others[key][held]
    if key in KEYPAD:
        return _keypad(key, prefixed, held, digits=num != shift)
    if prefixed:
        return None
    if key in _FUNCTION:
        steps = _FUNCTION_STEPS if key < _102ND else _LATE_FUNCTION_STEPS
        return _FUNCTION[key] + steps[held] << 8
    return _printed(key, held, caps) if key in _PLAIN else None


def _keypad(key: int, prefixed: bool, held: int, *, digits: bool) -> int | None:
    low = GREY if prefixed else 0
    if held == 3:
        return key + _ALT_KEYPAD_STEP << 8 if prefixed else None  # without prefix, digits of a character's code
    if held == 2:
        return _CONTROL_KEYPAD[key] << 8 | low
    if digits and not prefixed:
        return key << 8 | ord(KEYPAD[key])
    return key << 8 | (NEW if key == _FIVE else low)


def _printed(key: int, held: int, caps: bool) -> int | None:
    plain = _PLAIN[key]
    if held == 3:
        if key in _DIGITS:
            return key + _ALT_DIGIT_STEP << 8
        return key << 8 | (0 if plain.isalpha() else NEW)
    if held == 2:
        character = ord(plain) & 0x1F if plain.isalpha() else _CONTROL_CHARACTERS.get(key)
        return None if character is None else key << 8 | character
    upper = bool(held) != (caps and plain.isalpha())
    return key << 8 | ord((_SHIFTED if upper else _PLAIN)[key])


def as_old(word: int) -> int | None:
    """A word of the buffer as the functions of the old keyboard give it; None: they skip it.

    >>> hex(as_old(0x48E0) or 0), as_old(0x8500)
    ('0x4800', None)
    """
    code, character = word >> 8, word & 0xFF
    if code == GREY:
        return (ENTER if character in (0x0D, 0x0A) else _SLASH) << 8 | character
    if code > _LAST_OLD or (code and character == NEW):
        return None
    return code << 8 if code and character == GREY else word


def as_new(word: int) -> int:
    """A word of the buffer as the functions of the keyboard of 101 keys give it."""
    return word & 0xFF00 if word >> 8 and word & 0xFF == NEW else word
