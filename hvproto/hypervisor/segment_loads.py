"""Loads of data-segment registers and SS, done for a guest: from its own tables, with all checks (SDM vol. 2, MOV)."""

from __future__ import annotations

from dataclasses import replace

from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised, load_descriptor
from hvproto.processor.far_code import marked
from hvproto.processor.segments import DPL_SHIFT, RPL_MASK, Segment, SegmentRegister, v86_segment
from hvproto.processor.settings import EFLAGS_VM

INVALID_OPCODE, NOT_PRESENT, STACK_FAULT, PROTECTION = 6, 11, 12, 13


def load(cpu: VirtualCpu, register: SegmentRegister, selector: int) -> None:
    """MOV, POP, LDS and their like. Raises `Raised`, with nothing changed."""
    if register is SegmentRegister.CS:
        raise Raised(INVALID_OPCODE)
    cpu.set_segments({register: found(cpu, register, selector)})
    if register is SegmentRegister.SS:
        cpu.set_shadow(True)


def found(cpu: VirtualCpu, register: SegmentRegister, selector: int) -> Segment:
    """What the register holds afterwards; the accessed bit of its descriptor is set. Raises `Raised`."""
    if not cpu.is_protected:
        # Limit and rights stay as they are: "unreal" mode lives on that.
        return replace(cpu.segment(register), selector=selector, base=selector << 4)
    if cpu.eflags & EFLAGS_VM:
        return v86_segment(selector)
    if register is SegmentRegister.SS:
        return _stack(cpu, selector)
    if not selector & ~RPL_MASK:
        return Segment(selector)
    target = cpu.target()
    segment = load_descriptor(target, selector)
    closed = not segment.is_conforming and segment.dpl < max(cpu.cpl, segment.rpl)
    if not segment.is_readable or closed:
        raise Raised(PROTECTION, selector & ~RPL_MASK)
    if not segment.present:
        raise Raised(NOT_PRESENT, selector & ~RPL_MASK)
    return marked(target, segment)


def _stack(cpu: VirtualCpu, selector: int) -> Segment:
    level = cpu.cpl
    if not selector & ~RPL_MASK:
        if not cpu.code64 or level == 3 or selector & RPL_MASK != level:
            raise Raised(PROTECTION, 0)
        return Segment(selector, 0, 0, level << DPL_SHIFT)
    target = cpu.target()
    stack = load_descriptor(target, selector)
    if stack.rpl != level or stack.dpl != level or not stack.is_writable_data:
        raise Raised(PROTECTION, selector & ~RPL_MASK)
    if not stack.present:
        raise Raised(STACK_FAULT, selector & ~RPL_MASK)
    return marked(target, stack)
