"""The machine's memory: one anonymous mapping that Python owns and the engine executes from."""

from __future__ import annotations

import mmap

from hvproto.addresses import PAGE_SIZE
from hvproto.errors import MachineError

MIB = 1 << 20
SMALLEST_RAM = 1 * MIB
LARGEST_RAM = 2048 * MIB


class Ram:
    """``size`` bytes of zeroed RAM from physical address 0. Raises MachineError for an unusable size.

    >>> Ram(2 * MIB).size
    2097152
    """

    def __init__(self, size: int) -> None:
        if not SMALLEST_RAM <= size <= LARGEST_RAM or size % PAGE_SIZE:
            raise MachineError(
                f"RAM of {size:,} bytes: give a multiple of 4096 between "
                f"{SMALLEST_RAM // MIB} MiB and {LARGEST_RAM // MIB} MiB"
            )
        self.size = size
        # Private, so that a forked process has a copy of its own.
        self._mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._mapping)


def parse_size(text: str) -> int:
    """A size as people write it, in bytes. Raises MachineError.

    >>> parse_size("16M"), parse_size("4096"), parse_size("1GiB")
    (16777216, 4096, 1073741824)
    """
    units = {"": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30}
    cleaned = text.strip().upper().removesuffix("IB").removesuffix("B")
    unit = cleaned[-1:] if cleaned[-1:] in ("K", "M", "G") else ""
    digits = cleaned.removesuffix(unit)
    if not (digits.isascii() and digits.isdigit()):
        raise MachineError(f"{text!r} is not a size: write for example 4096, 64K or 16M")
    return int(digits) * units[unit]
