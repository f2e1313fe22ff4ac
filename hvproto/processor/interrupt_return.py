"""IRET, IRETD and IRETQ in all modes (SDM vol. 2, IRET).

The real processor leaves most of them to the engine, which is faster and errs in few points; a virtual processor has
no other. Nothing has changed when `Raised` is raised, unless it is ``committed``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor import far_code
from hvproto.processor.exceptions import LINEAR_32, Raised
from hvproto.processor.far_memory import Stack, current_stack
from hvproto.processor.far_return import close_segments, outer_stack, return_segment
from hvproto.processor.instruction import Instruction
from hvproto.processor.segments import Segment, SegmentRegister, v86_segment
from hvproto.processor.settings import (
    CR0_PE,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    Setting,
)
from hvproto.processor.task_switch import switch_back

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

PROTECTION = 13
FLAGS_OF_ANY_RING = 0x25_4DD5
"""Arithmetic flags, TF, DF, NT, RF, AC and ID."""
FLAGS_OF_REAL_MODE = FLAGS_OF_ANY_RING | EFLAGS_IF | EFLAGS_IOPL
FLAGS_OF_V86 = FLAGS_OF_ANY_RING | EFLAGS_IF
"""What IRET gives a program of virtual-8086 mode, by itself: at IOPL 3. No VIF and VIP: there is no VME."""
_FLAGS_FROM_RING_0 = FLAGS_OF_REAL_MODE | EFLAGS_VM | EFLAGS_VIF | EFLAGS_VIP
"""What it gives from ring 0 to virtual-8086 mode: VIF and VIP, too, whether there is VME or not (SDM vol. 2, IRET)."""
_V86_FRAME = (SegmentRegister.SS, SegmentRegister.ES, SegmentRegister.DS, SegmentRegister.FS, SegmentRegister.GS)


def interrupt_return(processor: Cpu, instruction: Instruction) -> None:
    """Do what the IRET at EIP does, NMI unblocked. Raises `Raised`."""
    target = processor.target()
    size = instruction.operand_size
    if target.eflags & EFLAGS_VM:
        if target.eflags & EFLAGS_IOPL != EFLAGS_IOPL:
            raise Raised(PROTECTION, 0)
        _in_real_segments(processor, target, size, FLAGS_OF_V86)
    elif not processor.control(Setting.CR0) & CR0_PE:
        _in_real_segments(processor, target, size, FLAGS_OF_REAL_MODE)
    elif target.eflags & EFLAGS_NT:
        if target.long_mode:
            raise Raised(PROTECTION, 0)
        switch_back(processor, target, processor.eip + instruction.size & LINEAR_32)
    else:
        _in_protected_mode(processor, target, size)
    processor.unblock_nmi()


def _in_real_segments(processor: Cpu, target: LiveTarget, size: int, writable: int) -> None:
    """In real and virtual-8086 mode, where selectors are paragraph numbers."""
    stack = current_stack(processor, target)
    offset, selector, image = _frame(stack, size)
    if offset > target.code.limit:
        raise Raised(PROTECTION, 0)
    code = Segment(selector, selector << 4, target.code.limit, target.code.attributes)
    processor.set_segments({SegmentRegister.CS: code})
    processor.eip = offset
    processor.esp = stack.moved(3 * size)
    _set_flags(processor, target, image, writable, size)


def _in_protected_mode(processor: Cpu, target: LiveTarget, size: int) -> None:
    stack = current_stack(processor, target)
    offset, selector, image = _frame(stack, size)
    if image & EFLAGS_VM and size == 4 and target.cpl == 0 and not target.long_mode:
        _to_v86(processor, stack, offset, selector, image)
        return
    code = return_segment(target, selector)
    if code.rpl > target.cpl or processor.code64:
        _with_stack(processor, target, stack, code, offset, size)
    else:
        offset = far_code.checked_offset(target, code, offset)
        far_code.enter(processor, target, code, offset, pointer=stack.moved(3 * size))
    writable = FLAGS_OF_ANY_RING
    if target.cpl == 0:
        writable |= EFLAGS_IOPL
    if target.cpl <= (target.eflags & EFLAGS_IOPL) >> 12:
        writable |= EFLAGS_IF
    _set_flags(processor, target, image, writable, size)


def _with_stack(processor: Cpu, target: LiveTarget, stack: Stack, code: Segment, offset: int, size: int) -> None:
    """SS:ESP lie behind the flags: for an outer ring, and always if it is 64-bit code that returns."""
    wide = far_code.is_wide(target, code)
    top = stack.peek(3 * size, size)
    segment = outer_stack(target, stack.peek(4 * size, size) & 0xFFFF, code.rpl, wide=wide)
    offset = far_code.checked_offset(target, code, offset)
    if wide:
        pointer = top
    elif segment.is_32bit:
        pointer = top & LINEAR_32
    else:
        pointer = target.esp & ~0xFFFF | top & 0xFFFF
    far_code.enter(processor, target, code, offset, level=code.rpl, stack=segment, pointer=pointer)
    if code.rpl > target.cpl:
        close_segments(processor, code.rpl)


def _to_v86(processor: Cpu, stack: Stack, offset: int, selector: int, image: int) -> None:
    """From ring 0 to virtual-8086 mode: all segment registers are in the frame, all flags are taken."""
    top, *others = (stack.peek(4 * index, 4) for index in range(3, 9))
    processor.eflags = image & _FLAGS_FROM_RING_0 | EFLAGS_FIXED
    segments = {SegmentRegister.CS: v86_segment(selector)}
    segments.update({r: v86_segment(value & 0xFFFF) for r, value in zip(_V86_FRAME, others, strict=True)})
    processor.set_segments(segments)
    processor.eip = offset & 0xFFFF
    processor.esp = top
    processor.set_shadow(False)


def _frame(stack: Stack, size: int) -> tuple[int, int, int]:
    """The offset, the selector and the flags that every IRET pops. Raises `Raised`."""
    return stack.peek(0, size), stack.peek(size, size) & 0xFFFF, stack.peek(2 * size, size)


def _set_flags(processor: Cpu, target: LiveTarget, image: int, writable: int, size: int) -> None:
    """IRET of 16 bits leaves the upper half as it is; RF is clear then, as after any instruction."""
    writable &= (1 << 8 * size) - 1
    far_code.complete(processor)
    processor.eflags = processor.eflags & ~writable | image & writable
