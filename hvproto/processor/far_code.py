"""Code segments as far transfers find, check and enter them (SDM vol. 3, 5.8.1; vol. 2, JMP, CALL and RET)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.exceptions import LINEAR_32, Raised, descriptor_place, load_descriptor
from hvproto.processor.long_mode import LINEAR_64, is_canonical
from hvproto.processor.segments import (
    ACCESSED,
    DEFAULT_BIG,
    DPL_SHIFT,
    LONG,
    RPL_MASK,
    Segment,
    SegmentRegister,
)
from hvproto.processor.settings import EFLAGS_RF

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

NOT_PRESENT, PROTECTION = 11, 13


def error_of(selector: int) -> int:
    """The error code that names a selector."""
    return selector & 0xFFFF & ~RPL_MASK


def check_directly(target: LiveTarget, code: Segment) -> None:
    """Whether JMP and CALL may go to a code segment without a gate. Raises `Raised`."""
    closed = code.dpl > target.cpl if code.is_conforming else code.rpl > target.cpl or code.dpl != target.cpl
    if closed or is_of_both_sizes(target, code):
        raise Raised(PROTECTION, error_of(code.selector))
    check_present(code)


def code_behind_gate(target: LiveTarget, selector: int, *, call: bool) -> Segment:
    """The code segment that a call gate names, checked (SDM vol. 3, 5.8.4). Raises `Raised`."""
    code = load_descriptor(target, selector)
    # Only CALL goes to an inner ring, and only to a segment that isn't conforming.
    inward = call or code.is_conforming
    open_to = code.dpl <= target.cpl if inward else code.dpl == target.cpl
    only_wide = target.long_mode and code.attributes & (LONG | DEFAULT_BIG) != LONG
    if not code.is_code or not open_to or only_wide:
        raise Raised(PROTECTION, error_of(selector))
    check_present(code)
    return code


def is_of_both_sizes(target: LiveTarget, code: Segment) -> bool:
    """L and D set, which is reserved in long mode (SDM vol. 3, 3.4.5)."""
    return target.long_mode and code.attributes & (LONG | DEFAULT_BIG) == LONG | DEFAULT_BIG


def check_present(code: Segment) -> None:
    if not code.present:
        raise Raised(NOT_PRESENT, error_of(code.selector))


def checked_offset(target: LiveTarget, code: Segment, offset: int) -> int:
    """An instruction pointer, as wide as its code segment has it. Raises `Raised`: #GP(0)."""
    if is_wide(target, code):
        if not is_canonical(offset):
            raise Raised(PROTECTION, 0)
        return offset
    offset &= LINEAR_32
    if offset > code.limit:
        raise Raised(PROTECTION, 0)
    return offset


def is_wide(target: LiveTarget, code: Segment) -> bool:
    """Whether a code segment is one of 64 bits."""
    return target.long_mode and bool(code.attributes & LONG)


def marked(target: LiveTarget, segment: Segment) -> Segment:
    """A segment with its accessed bit set, in its table too (SDM vol. 3, 3.4.5.1). Raises `Raised`."""
    if not target.protected or not segment.selector & ~RPL_MASK or segment.attributes & ACCESSED:
        return segment
    place = descriptor_place(target, segment.selector) + 5 & (LINEAR_64 if target.long_mode else LINEAR_32)
    target.write(place, 1, target.read(place, 1) | 1)
    return segment.accessed()


def null_stack(level: int) -> Segment:
    """SS as 64-bit code of an inner ring has it: null, with the ring as its RPL; the engine has CPL from its DPL."""
    return Segment(level, 0, 0, level << DPL_SHIFT)


def enter(
    processor: Cpu,
    target: LiveTarget,
    code: Segment,
    offset: int,
    *,
    level: int | None = None,
    stack: Segment | None = None,
    pointer: int | None = None,
) -> None:
    """Load CS:EIP, SS and ESP, where they change, all checks passed. Raises `Raised` before anything changes."""
    level = target.cpl if level is None else level
    loaded = {SegmentRegister.CS: marked(target, code.with_selector(error_of(code.selector) | level))}
    if stack is not None:
        loaded[SegmentRegister.SS] = marked(target, stack)
    processor.set_segments(loaded)
    processor.eip = offset
    if pointer is not None:
        processor.esp = pointer
    complete(processor)


def complete(processor: Cpu) -> None:
    """What the end of any instruction does: RF and the shadow of a load of SS don't outlive it."""
    eflags = processor.eflags
    if eflags & EFLAGS_RF:
        processor.eflags = eflags & ~EFLAGS_RF
    if processor.in_interrupt_shadow:
        processor.set_shadow(False)
