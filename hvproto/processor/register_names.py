"""The general registers by all of their names."""

from __future__ import annotations

from hvproto.processor.engine import GPR_NAMES, SHORT_GPR_NAMES, WIDE_GPR_NAMES

_HIGH_BYTES = ("ah", "ch", "dh", "bh")
_LOW_BYTES = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil")
_SUFFIXES = {"d": 4, "w": 2, "b": 1}
"""Of R8 to R15, and their sizes in bytes."""


def register_place(name: str) -> tuple[int, int, int]:
    """Where a general register lies: machine encoding, shift in bits, size in bytes. Raises ValueError.

    >>> register_place("eax"), register_place("ch"), register_place("r10w"), register_place("sil")
    ((0, 0, 4), (1, 8, 1), (10, 0, 2), (6, 0, 1))
    """
    for names, shift, size in (
        (WIDE_GPR_NAMES, 0, 8),
        (GPR_NAMES, 0, 4),
        (SHORT_GPR_NAMES, 0, 2),
        (_LOW_BYTES, 0, 1),
        (_HIGH_BYTES, 8, 1),
    ):
        if name in names:
            return names.index(name), shift, size
    if name[:1] == "r" and name[1:-1].isdigit() and name[-1] in _SUFFIXES and 8 <= int(name[1:-1]) < 16:
        return int(name[1:-1]), 0, _SUFFIXES[name[-1]]
    raise ValueError(f"no general register: {name}")
