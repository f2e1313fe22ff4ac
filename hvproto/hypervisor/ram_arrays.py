"""The host's RAM as NumPy sees it: rows of one page each, so that whole page tables are read and written at once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hvproto.addresses import PAGE_SIZE

Entries32: TypeAlias = npt.NDArray[np.uint32]
Entries64: TypeAlias = npt.NDArray[np.uint64]
Numbers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]


def rows64(ram: memoryview) -> Entries64:
    """RAM as an array of pages of 512 quadwords; shares the memory. What isn't a whole page is left out."""
    return np.frombuffer(ram[: len(ram) // PAGE_SIZE * PAGE_SIZE], np.uint64).reshape(-1, PAGE_SIZE // 8)


def rows32(ram: memoryview) -> Entries32:
    """RAM as an array of pages of 1024 doublewords; shares the memory. What isn't a whole page is left out."""
    return np.frombuffer(ram[: len(ram) // PAGE_SIZE * PAGE_SIZE], np.uint32).reshape(-1, PAGE_SIZE // 4)


def runs(flags: Flags) -> list[tuple[int, int]]:
    """The (first, end) of each run of True in a one-dimensional array, in order.

    >>> runs(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
