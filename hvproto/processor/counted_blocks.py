"""Instructions counted by the basic blocks that an engine tells of: the same count as `instruction_count`'s, which
says what counts, where there is no way into the engine's own code.

A block counts in full as it begins; where it is left in the middle, what stands behind that place is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from hvproto.processor.instruction import KNOWN, decoder
from hvproto.processor.instruction_count import REP, REPNE, STRING_OPCODES
from hvproto.processor.opcodes import PREFIXES

Code = Callable[[int, int], tuple[bytes, int]]
"""(linear address, size) -> the code that is there now, and Capstone's mode for it."""
Starts = tuple[int, ...]


class CountedBlocks:
    """The count of one engine."""

    def __init__(self, code: Code) -> None:
        self.count = 0
        self._code = code
        self._known: dict[tuple[int, int], tuple[Starts, bool] | None] = {}
        """What the blocks of an address and size have been like that were translated so far; None if not all alike."""
        self._start, self._size = 0, 0
        self._starts: Starts = ()
        self._repeating = -1

    def translated(self, address: int, size: int) -> None:
        """A block is about to run for the first time: linear address, bytes."""
        now = starts_of(*self._code(address, size))
        place = (address, size)
        self._known[place] = now if self._known.get(place, now) == now else None

    def begin(self, address: int, size: int) -> None:
        """A block begins."""
        starts, repeats = self._known.get((address, size)) or starts_of(*self._code(address, size))
        offset = address - self._start
        if offset in self._starts[:-1] and self._length_at(offset) == size:
            # It had others behind it, and is alone now: it has overwritten its own block, and is begun anew.
            self.count -= len(self._starts) - self._starts.index(offset)
        self.count += len(starts) - (repeats and len(starts) == 1 and address == self._repeating)
        self._start, self._size, self._starts = address, size, starts
        self._repeating = address + starts[-1] if repeats else -1

    def leave(self, address: int) -> None:
        """The block that has begun last is left at the instruction at this linear address, which has begun, too."""
        offset = address - self._start
        if offset in self._starts:
            behind = len(self._starts) - self._starts.index(offset) - 1
            self.count -= behind
            if behind:
                self._repeating = -1
        self.close()

    def close(self) -> None:
        """The block that has begun last is over."""
        self._starts = ()

    def forget_rounds(self) -> None:
        """What comes next has begun anew, also if it goes on with a REP."""
        self._repeating = -1

    def _length_at(self, offset: int) -> int:
        return self._starts[self._starts.index(offset) + 1] - offset


@lru_cache(maxsize=KNOWN)
def starts_of(code: bytes, mode: int) -> tuple[Starts, bool]:
    """Where in a basic block its instructions begin, and whether the last one is a string instruction with REP.

    What Capstone can't decode, is one instruction: nothing but the engine's #UD is to be expected there.

    >>> import capstone
    >>> starts_of(bytes.fromhex("90 f3aa"), capstone.CS_MODE_32)
    ((0, 1), True)
    """
    found, end = [], 0
    for address, size, _, _ in decoder(mode).disasm_lite(code, 0):
        found.append(address)
        end = address + size
    if end < len(code) or not found:
        found.append(end)
    return tuple(found), _repeats(code[found[-1] :])


def _repeats(instruction: bytes) -> bool:
    before = instruction[:-1]
    return (
        instruction[-1:] != b""
        and instruction[-1] in STRING_OPCODES
        and (REP in before or REPNE in before)
        and all(byte in PREFIXES for byte in before)
    )
