"""Keys of a US keyboard: scan codes of set 1, and what INT 16h gives for them: scan code and character."""

from __future__ import annotations

_ROWS = {0x02: "1234567890-=", 0x10: "qwertyuiop[]", 0x1E: "asdfghjkl;'`", 0x2B: "\\zxcvbnm,./"}
_SHIFTED_ROWS = {0x02: "!@#$%^&*()_+", 0x10: "QWERTYUIOP{}", 0x1E: 'ASDFGHJKL:"~', 0x2B: "|ZXCVBNM<>?"}
_CONTROLS = {"\x1b": 0x01, "\b": 0x0E, "\t": 0x0F, "\r": 0x1C, " ": 0x39}
_KEYPAD = {0x37: "*", 0x4A: "-", 0x4E: "+"}

LEFT_SHIFT, RIGHT_SHIFT, CONTROL, ALT, CAPS_LOCK = 0x2A, 0x36, 0x1D, 0x38, 0x3A


def _table(rows: dict[int, str]) -> dict[int, str]:
    return {first + offset: key for first, keys in rows.items() for offset, key in enumerate(keys)}


_FIXED = {code: key for key, code in _CONTROLS.items()} | _KEYPAD
PLAIN = _table(_ROWS) | _FIXED
SHIFTED = _table(_SHIFTED_ROWS) | _FIXED
_CODES = {key: code for table in (SHIFTED, PLAIN) for code, key in table.items() if code not in _KEYPAD} | {"*": 0x09}


def key_of(character: str) -> int | None:
    r"""What INT 16h gives for a character typed: the scan code above it; None if no key has it. A newline is Enter.

    >>> [hex(key_of(character) or 0) for character in "aA\n"]
    ['0x1e61', '0x1e41', '0x1c0d']
    """
    character = "\r" if character == "\n" else character
    code = _CODES.get(character)
    if code is not None:
        return code << 8 | ord(character)
    if "\x01" <= character <= "\x1a":
        return _CODES[chr(ord(character) + 0x60)] << 8 | ord(character)
    return None


def translated(code: int, *, shift: bool, control: bool, alt: bool, caps: bool) -> int | None:
    """What a make code (without prefix) gives with these keys held, None if nothing."""
    plain = PLAIN.get(code)
    if plain is None:
        if 0x3B <= code <= 0x44:  # function keys: Shift, Ctrl and Alt have codes of their own
            return (code + (0x2D if alt else 0x23 if control else 0x19 if shift else 0)) << 8
        return code << 8 if 0x44 < code < 0x59 else None
    if alt:
        return (code + 0x76 if 0x02 <= code <= 0x0D else code) << 8
    if control:
        return code << 8 | ord(plain) & 0x1F if plain.isalpha() or plain in "[\\]" else None
    upper = shift != (caps and plain.isalpha())
    return code << 8 | ord(SHIFTED[code] if upper else plain)
