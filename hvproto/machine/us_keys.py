"""The keys of a PC keyboard: their scan codes in sets 1 and 2, and what the US layout prints on them.

Throughout, a *key* is named by its make code of set 1, as kernels know it: 0x1e is A, 0xe048 the upper arrow. Source:
IBM PS/2 Hardware Interface Technical Reference, Keyboards (101- and 102-key), 1990.
"""

from __future__ import annotations

from hvproto.errors import MachineError

ESCAPE, BACKSPACE, TAB, ENTER = 0x01, 0x0E, 0x0F, 0x1C
LEFT_CONTROL, LEFT_SHIFT = 0x1D, 0x2A
EXTENDED = 0xE0
_BREAK = 0x80

# The codes of set 2 in the order of those of set 1, from 0x01 to 0x7f; a row is 16 codes of set 1. Behind 0x58 (F12)
# there are no keys of the plain sort, but the controller translates those codes, too.
_SET_2 = bytes.fromhex(
    "76161e26252e363d3e46454e55660d"
    "151d242d2c353c43444d545b5a141c1b"
    "232b34333b424b4c520e125d1a22212a"
    "32313a41494a597c1129580506040c03"
    "0b830a0109777e6c757d7b6b73747969"
    "727a707184606178070f171f272f373f"
    "474f565e08101820283038404850576f"
    "13193951535c5f6263646567686a6d6e"
)
SET_2_OF_SET_1 = dict(enumerate(_SET_2, 1))
SET_1_OF_SET_2 = {two: one for one, two in SET_2_OF_SET_1.items()}
SET_1_OF_SET_2 |= {0x00: 0xFF, 0x02: 0x41, 0x7F: 0x54}  # an overrun; and two codes of other keyboards


ROWS = (
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x39, " ", " "),
)
"""What is printed on consecutive keys: the first one, the characters without and with Shift."""


def set_1_codes(key: int, pressed: bool) -> bytes:
    """What a key sends in set 1: make code, or break code with bit 7 set."""
    code = key & 0x7F | (0 if pressed else _BREAK)
    return bytes((EXTENDED, code)) if key >> 8 else bytes((code,))


def set_2_codes(key: int, pressed: bool) -> bytes:
    """What a key sends in set 2: the break code has 0xf0 before the last byte."""
    prefix = bytes((EXTENDED,)) if key >> 8 else b""
    return prefix + (b"" if pressed else b"\xf0") + bytes((SET_2_OF_SET_1[key & 0x7F],))


def check_key(key: int) -> None:
    """Raises MachineError unless ``key`` is a make code of set 1: 0x01 to 0x7f, or with 0xe000 added."""
    if key >> 8 not in (0, EXTENDED) or key & 0xFF not in SET_2_OF_SET_1:
        raise MachineError(f"{key:#x} is no make code of scan code set 1: those are 0x01 to 0x7f and 0xe001 to 0xe07f")


def keys_for(character: str) -> tuple[int, ...]:
    """The keys to hold down for a character, the modifier first: US layout. Raises MachineError if it isn't there.

    Newline is Enter; besides, there are backspace, tab, escape, and the other control characters with the control key.

    >>> [hex(key) for key in keys_for("A")], keys_for("a")
    (['0x2a', '0x1e'], (30,))
    """
    keys = _KEYS.get(character)
    if keys is None:
        raise MachineError(f"the US keyboard has no key for {character!r}")
    return keys


def _layout() -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}
    for first, plain, shifted in ROWS:
        for key, (lower, upper) in enumerate(zip(plain, shifted, strict=True), first):
            keys[upper] = (LEFT_SHIFT, key)
            keys[lower] = (key,)
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        keys[chr(ord(letter) - 0x40)] = (LEFT_CONTROL, keys[letter.lower()][0])
    keys |= {"\n": (ENTER,), "\r": (ENTER,), "\b": (BACKSPACE,), "\x7f": (BACKSPACE,), "\t": (TAB,), "\x1b": (ESCAPE,)}
    return keys


_KEYS = _layout()
