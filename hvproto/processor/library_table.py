"""Where Unicorn's library keeps the addresses of its own exported functions, which the dynamic linker fills in.

A library that lets others replace its functions calls even its own through a table (ELF: ``.got.plt``), and so it does
with the addresses in its constant tables.
"""

from __future__ import annotations

import ctypes

import numpy as np
from unicorn.unicorn_py3.unicorn import uclib

from hvproto.processor.private_layout import address_of

_LINK_MAP = 2
"""Of dlinfo(3): the record of a loaded library."""
_SIZE_OF_TABLE, _SYMBOLS, _RELOCATIONS = 2, 6, 23
"""Tags of the dynamic section: DT_PLTRELSZ, DT_SYMTAB, DT_JMPREL, ..."""
_CONSTANTS, _SIZE_OF_CONSTANTS = 7, 8
"""... DT_RELA, DT_RELASZ."""
_ADDRESS, _KIND = 1, (1 << 32) - 1
"""R_X86_64_64, a symbol's address as it is, and where a relocation says of what kind it is."""
_WORDS = 3
"""Words of eight bytes in a relocation and in a symbol: both have 24."""


def slot_of(name: str) -> int | None:
    """The address of the word through which the library calls a function that it exports; None if there is none."""
    return _only_place(name, _RELOCATIONS, _SIZE_OF_TABLE)


def constant_of(name: str) -> int | None:
    """The address of the only word of the library's constant tables that points to a function that it exports.

    The page that it is on can't be stored to (``.data.rel.ro``).
    """
    return _only_place(name, _CONSTANTS, _SIZE_OF_CONSTANTS, _ADDRESS)


def _only_place(name: str, relocations_tag: int, size_tag: int, kind: int | None = None) -> int | None:
    try:
        base, dynamic = _loaded()
    except (AttributeError, OSError):
        return None
    size, symbols, relocations = (dynamic.get(tag, 0) for tag in (size_tag, _SYMBOLS, relocations_tag))
    if not (size and symbols and relocations):
        return None
    table = _words(relocations, size // 8)
    if kind is not None:
        table = table[table[:, 1] & _KIND == kind]
    numbers = table[:, 1] >> 32
    values = _words(symbols, (int(numbers.max(initial=0)) + 1) * _WORDS)[:, 1]
    hits = np.flatnonzero(values[numbers] + np.uint64(base) == address_of(name))
    return base + int(table[hits[0], 0]) if len(hits) == 1 else None


def _loaded() -> tuple[int, dict[int, int]]:
    """Where the library is, and its dynamic section, with addresses as they are in memory."""
    record = ctypes.c_void_p()
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(uclib._handle), _LINK_MAP, ctypes.byref(record)):
        raise OSError("the dynamic linker doesn't tell where the library is")
    base, _, at = (ctypes.c_uint64 * 3).from_address(record.value or 0)
    dynamic: dict[int, int] = {}
    while True:
        tag, value = (ctypes.c_uint64 * 2).from_address(at)
        if not tag:
            return base, dynamic
        is_address = tag in (_SYMBOLS, _RELOCATIONS, _CONSTANTS)
        dynamic[tag] = value + base if is_address and value < base else value  # only some linkers have added it
        at += 16


def _words(address: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return np.ctypeslib.as_array((ctypes.c_uint64 * count).from_address(address)).reshape(-1, _WORDS)
