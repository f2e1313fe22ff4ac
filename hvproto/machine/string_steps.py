"""REP INS and REP OUTS: how many steps of the one that is under way can be done at once.

In the engine each step of a repeated string instruction is a basic block of its own, from the second one on. In its
port access the present step hasn't moved its registers yet (and INS hasn't stored anything). So the following steps
can be done there and the registers moved on: the step that is under way then ends as if it were the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.processor.processor import Processor
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_TF

_REPEATS, _OPERAND_SIZE, _ADDRESS_SIZE = {0xF2, 0xF3}, 0x66, 0x67
_PREFIXES = {*_REPEATS, _OPERAND_SIZE, _ADDRESS_SIZE}
_MOST_BYTES = 4
_EFLAGS_DF = 0x400
_BREAKPOINTS_ON = 0xFF  # in DR7
_COUNT = 1  # CX


@dataclass(frozen=True)
class StringInstruction:
    """INSW and INSD, or OUTSW and OUTSD: opcode, index register, and the segment that it points into."""

    opcode: int
    pointer: int
    segment: SegmentRegister


INPUT = StringInstruction(0x6D, 7, SegmentRegister.ES)
OUTPUT = StringInstruction(0x6F, 6, SegmentRegister.DS)


@dataclass(frozen=True)
class StepsAtOnce:
    """So many steps, two or more, the present one included, whose memory is together in one page of RAM."""

    steps: int
    linear: int
    """Where the present step's operand is, ..."""
    physical: int
    """... and in physical memory."""
    size: int
    instruction: StringInstruction
    mask: int
    code_size: int

    def skip(self, processor: Processor, more: int) -> None:
        """Count so many steps as done, beside the present one."""
        count, pointer = processor.gpr(_COUNT), processor.gpr(self.instruction.pointer)
        mask = self.mask
        moved = (pointer & mask) + more * self.size & mask
        processor.set_gpr(_COUNT, count & ~mask | (count & mask) - more)
        processor.set_gpr(self.instruction.pointer, pointer & ~mask | moved)
        processor.engine.now += more * self.code_size


def steps_at_once(processor: Processor, instruction: StringInstruction, size: int) -> StepsAtOnce | None:
    """For the port access of ``size`` bytes that is under way; None unless it is such a step, and there is any gain.

    An instruction with a segment prefix is left alone. The page of the present step is known to be accessible.
    """
    start, end = processor.engine.last_block
    if not 1 < end - start <= _MOST_BYTES:
        return None
    code = processor.peek(start, end - start)
    if code is None or not _is_repeated(code, instruction.opcode) or not _plain(processor):
        return None
    mask = (1 << _address_bits(processor, code)) - 1
    offset = processor.gpr(instruction.pointer) & mask
    base = 0 if processor.code64 else processor.segment(instruction.segment).base
    linear = processor.wrapped(base + offset)
    steps = min(
        processor.gpr(_COUNT) & mask, (PAGE_SIZE - page_offset(linear)) // size, (mask + 1 - offset) // size
    )  # fmt: skip
    if steps < 2:
        return None
    physical = processor.walk(linear).physical
    if physical is None or physical + steps * size > len(processor.ram):
        return None
    return StepsAtOnce(steps, linear, physical, size, instruction, mask, end - start)


def _is_repeated(code: bytes, opcode: int) -> bool:
    *prefixes, last = code
    return last == opcode and bool(_REPEATS & set(prefixes)) and _PREFIXES.issuperset(prefixes)


def _plain(processor: Processor) -> bool:
    """Whether nobody wants to see each step: no single step, no breakpoints, no watched memory; and upwards."""
    return (
        processor.on_protected_store is None
        and not processor.eflags & (EFLAGS_TF | _EFLAGS_DF)
        and not processor.debug_register(7) & _BREAKPOINTS_ON
    )


def _address_bits(processor: Processor, code: bytes) -> int:
    if processor.code64:
        return 32 if _ADDRESS_SIZE in code else 64
    return 32 if processor.code.is_32bit != (_ADDRESS_SIZE in code) else 16
