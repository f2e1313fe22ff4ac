"""Executable memory for machine code of ours."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from functools import cache

import keystone

from hvproto.assembler import assembled

_SIZE = 16384
"""Bytes; pages that nothing is put in take no memory."""


class ExecutableMemory:
    """Executable memory with thunks in it; it must outlive the engine that calls them."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._free = 0

    def add(self, source: str, names: Mapping[str, int | str], before: bytes = b"") -> int:
        """Assemble a thunk with these in place of ``{names}``; returns its address.

        ``before``: bytes, a multiple of 16, that are to lie before it.
        """
        code = _assemble(source.format_map(names))
        place = self._free + len(before)
        self._page[self._free : place] = before
        self._free = place
        self._page[place : place + len(code)] = code
        self._free += len(code) + 15 & ~15
        return self._base + place


@cache
def _assemble(source: str) -> bytes:
    return assembled(keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64), source)
