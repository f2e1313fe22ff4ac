"""RETF: to the same or an outer privilege level (SDM vol. 2, RET; vol. 3, 5.8.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor import far_code
from hvproto.processor.exceptions import Raised, load_descriptor
from hvproto.processor.far_memory import Stack, current_stack
from hvproto.processor.instruction import Instruction
from hvproto.processor.segments import NULL_SEGMENT, RPL_MASK, Segment, SegmentRegister

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

STACK_FAULT, PROTECTION = 12, 13
_DATA_REGISTERS = (SegmentRegister.ES, SegmentRegister.FS, SegmentRegister.GS, SegmentRegister.DS)


def far_return(processor: Cpu, instruction: Instruction) -> None:
    """Do what the RETF at EIP does. Raises `Raised`, with nothing changed."""
    target = processor.target()
    size = instruction.operand_size
    released = instruction.operands[0].imm & 0xFFFF if instruction.operands else 0
    stack = current_stack(processor, target)
    offset, selector = stack.peek(0, size), stack.peek(size, size) & 0xFFFF
    code = return_segment(target, selector)
    if code.rpl == target.cpl:
        offset = far_code.checked_offset(target, code, offset)
        far_code.enter(processor, target, code, offset, pointer=stack.moved(2 * size + released))
    else:
        _outward(processor, target, stack, code, offset, size, released)


def return_segment(target: LiveTarget, selector: int) -> Segment:
    """The code segment that a return to ``selector`` loads. Raises `Raised`."""
    code = load_descriptor(target, selector)
    closed = code.dpl > code.rpl if code.is_conforming else code.dpl != code.rpl
    wrong = not code.is_code or code.rpl < target.cpl or closed
    if wrong or far_code.is_of_both_sizes(target, code):
        raise Raised(PROTECTION, far_code.error_of(selector))
    far_code.check_present(code)
    return code


def _outward(
    processor: Cpu, target: LiveTarget, stack: Stack, code: Segment, offset: int, size: int, released: int
) -> None:
    """The outer ring's stack lies behind the parameters; those are released on both."""
    wide = far_code.is_wide(target, code)
    top = stack.peek(2 * size + released, size)
    segment = outer_stack(target, stack.peek(3 * size + released, size) & 0xFFFF, code.rpl, wide=wide)
    offset = far_code.checked_offset(target, code, offset)
    if wide or segment.is_32bit:
        pointer = top + released & (0xFFFF_FFFF_FFFF_FFFF if wide else 0xFFFF_FFFF)
    else:
        pointer = target.esp & ~0xFFFF | top + released & 0xFFFF
    far_code.enter(processor, target, code, offset, level=code.rpl, stack=segment, pointer=pointer)
    close_segments(processor, code.rpl)


def outer_stack(target: LiveTarget, selector: int, level: int, *, wide: bool) -> Segment:
    """The stack segment of the ring that a return leads to. Raises `Raised`."""
    if not selector & ~RPL_MASK and wide and level != 3:
        return far_code.null_stack(level).with_selector(selector)
    stack = load_descriptor(target, selector)
    if stack.rpl != level or stack.dpl != level or not stack.is_writable_data:
        raise Raised(PROTECTION, far_code.error_of(selector))
    if not stack.present:
        raise Raised(STACK_FAULT, far_code.error_of(selector))
    return stack


def close_segments(processor: Cpu, level: int) -> None:
    """Data segments that the outer ring may not use become null."""
    closed = {}
    for register in _DATA_REGISTERS:
        segment = processor.segment(register)
        if segment.dpl < level and not segment.is_conforming:
            # The base of FS and GS is in use in 64-bit code whatever the selector.
            keep = processor.long_mode and register in (SegmentRegister.FS, SegmentRegister.GS)
            closed[register] = Segment(0, segment.base) if keep else NULL_SEGMENT
    if closed:
        processor.set_segments(closed)
