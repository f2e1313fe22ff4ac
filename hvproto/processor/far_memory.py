"""What far transfers read and write: pointers in memory, and stacks that move only when all has gone well.

The engine checks no segment limits; where a transfer's own operands lie beyond them, it is told here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.exceptions import Raised
from hvproto.processor.instruction import Instruction
from hvproto.processor.long_mode import LINEAR_64, is_canonical
from hvproto.processor.segments import CODE, CONFORMING, RPL_MASK, S_BIT, Segment, SegmentRegister

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

STACK_FAULT, PROTECTION = 12, 13


def read(processor: Cpu, linear: int, size: int) -> int:
    """An integer of at most a page from linear memory, with the rights of CPL. Raises `Raised`."""
    return processor.read(linear, size, user=processor.cpl == 3)


def read_pointer(processor: Cpu, instruction: Instruction) -> tuple[int, int]:
    """The selector and the offset that a far JMP or CALL through memory finds there. Raises `Raised`."""
    operand = instruction.memory_operand()
    assert operand is not None
    size = instruction.operand_size
    linear = instruction.linear_address(operand.mem)
    by_stack = instruction.through_stack_segment(operand.mem)
    vector = STACK_FAULT if by_stack else PROTECTION
    if processor.code64:
        _check_canonical(linear, size + 2, vector, 0)
    else:
        name = instruction.name_of(operand.mem.segment).upper() if operand.mem.segment else "SS" if by_stack else "DS"
        segment = processor.segment(SegmentRegister[name])
        offset = processor.wrapped(linear - segment.base)
        if not segment.present or not segment.is_readable or not is_within(segment, offset, size + 2):
            raise Raised(vector, 0)
    offset = read(processor, linear, size)
    return read(processor, processor.wrapped(linear + size), 2), offset


def is_within(segment: Segment, offset: int, size: int) -> bool:
    """Whether an operand lies within a segment's limit (SDM vol. 3, 5.3)."""
    last = offset + size - 1
    if segment.attributes & (S_BIT | CODE | CONFORMING) == S_BIT | CONFORMING:  # expand-down
        return offset > segment.limit and last <= (0xFFFF_FFFF if segment.is_32bit else 0xFFFF)
    # A segment of 4 GiB wraps around.
    return last <= segment.limit or segment.limit == 0xFFFF_FFFF


def _check_canonical(linear: int, size: int, vector: int, error: int) -> None:
    if not is_canonical(linear) or not is_canonical(linear + size - 1 & LINEAR_64):
        raise Raised(vector, error)


class Stack:
    """A stack that is read or written relative to a pointer of its own; the processor's SS:ESP stays as it is."""

    def __init__(
        self, processor: Cpu, target: LiveTarget, segment: Segment, pointer: int, *, wide: bool, level: int
    ) -> None:
        """``wide``: as 64-bit code uses it. ``level``: the privilege with which it is written."""
        self._processor = processor
        self._target = target
        self._segment = segment
        self._wide = wide
        self._user = level == 3
        self._error = 0 if segment == target.stack else segment.selector & ~RPL_MASK
        self.pointer = pointer

    @property
    def _mask(self) -> int:
        if self._wide:
            return LINEAR_64
        return 0xFFFF_FFFF if self._segment.is_32bit else 0xFFFF

    def moved(self, distance: int) -> int:
        """The pointer this many bytes further up; only its lower half moves on a 16-bit stack."""
        return self.pointer & ~self._mask | self.pointer + distance & self._mask

    def push(self, size: int, *values: int) -> None:
        """Push values in order. Raises `Raised`: #SS with the segment as error code if it is a new one, else 0."""
        for value in values:
            below = self.moved(-size)
            linear = self._place(below & self._mask, size)
            self._target.write(linear, size, value & (1 << 8 * size) - 1, user=self._user)
            self.pointer = below

    def peek(self, distance: int, size: int) -> int:
        """What lies this many bytes above the pointer. Raises `Raised`."""
        return read(self._processor, self._place(self.moved(distance) & self._mask, size), size)

    def _place(self, offset: int, size: int) -> int:
        if self._wide:
            _check_canonical(offset, size, STACK_FAULT, self._error)
            return offset
        if not is_within(self._segment, offset, size):
            raise Raised(STACK_FAULT, self._error)
        return self._segment.base + offset & 0xFFFF_FFFF


def current_stack(processor: Cpu, target: LiveTarget, *, wide: bool | None = None) -> Stack:
    """The stack that SS:ESP is; ``wide`` unless the mode of the code at hand decides."""
    wide = processor.code64 if wide is None else wide
    return Stack(processor, target, target.stack, target.esp, wide=wide, level=target.cpl)
