"""Instructions that are done here instead of by the engine, which gets them wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from capstone import x86_const as cs

from hvproto.processor import far_transfers, model, system_calls
from hvproto.processor.exceptions import Raised, push_all
from hvproto.processor.instruction import Instruction
from hvproto.processor.interrupt_return import interrupt_return
from hvproto.processor.lookout import DESCRIPTOR_QUERIES, IRETS, MODEL, TIME_STAMPS
from hvproto.processor.segments import DPL_SHIFT, RPL_MASK, Segment, SegmentRegister
from hvproto.processor.settings import (
    CR0_PE,
    CR4_TSD,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_VM,
    EFLAGS_ZF,
    TSC_AUX_MSR,
    Setting,
)

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu

RAX, RCX, RDX = 0, 1, 2
_KINDS_OF_286 = (1, 3, 4, 5, 6, 7)
"""System descriptors: 16-bit TSS, 16-bit gates, task gate."""


def replacement(processor: Cpu, instruction: Instruction) -> Callable[[], None] | None:
    """What to do instead of the instruction at EIP, or None if the engine is to execute it.

    What is done raises `Raised` for the instruction's fault; nothing has changed then, unless it is ``committed``.
    """
    if instruction.id == cs.X86_INS_PUSHFD:
        allowed = processor.eflags & (EFLAGS_VM | EFLAGS_IOPL) == EFLAGS_VM | EFLAGS_IOPL
        return partial(_pushfd, processor, instruction) if allowed else None
    if instruction.id in (cs.X86_INS_SYSRET, cs.X86_INS_SYSRETQ):
        return partial(system_calls.sysret, processor, instruction)
    if instruction.id in (cs.X86_INS_SYSEXIT, cs.X86_INS_SYSEXITQ):
        return partial(system_calls.sysexit, processor, instruction)
    if instruction.id in MODEL or (instruction.id == cs.X86_INS_MOV and _is_of_cr8(instruction)):
        return model.replacement(processor, processor.model, instruction)
    if instruction.id in TIME_STAMPS:
        return partial(_time_stamp, processor, instruction)
    if instruction.id in IRETS:
        return partial(interrupt_return, processor, instruction) if _returns_here(processor) else None
    if instruction.id in DESCRIPTOR_QUERIES:
        hidden = processor.long_mode and _is_of_286(processor, instruction)
        return partial(_not_found, processor, instruction) if hidden else None
    if instruction.loads(cs.X86_REG_SS):
        null = processor.code64 and processor.cpl in (1, 2)
        return partial(_null_stack, processor, instruction) if null and _selector(instruction) in (1, 2) else None
    return far_transfers.replacement(processor, instruction)


def _time_stamp(processor: Cpu, instruction: Instruction) -> None:
    """RDTSC and RDTSCP (SDM vol. 2): a tick is a cycle of virtual time. The engine's own is the wall clock."""
    if processor.control(Setting.CR4) & CR4_TSD and processor.control(Setting.CR0) & CR0_PE and processor.cpl != 0:
        raise Raised(13, 0)
    now = processor.now if processor.model is None else processor.model.time_stamp(processor.now)
    processor.set_gpr(RAX, now & 0xFFFF_FFFF)
    processor.set_gpr(RDX, now >> 32 & 0xFFFF_FFFF)
    if instruction.id == cs.X86_INS_RDTSCP:
        processor.set_gpr(RCX, processor.msr(TSC_AUX_MSR) & 0xFFFF_FFFF)
    processor.eip += instruction.size


def _returns_here(processor: Cpu) -> bool:
    """Whether the engine gets an IRET wrong: that of a program, whose stack it reads as the kernel would and whose VM
    it takes over, and that of a nested task, whose 16-bit TSS it reads at wrong places."""
    eflags = processor.eflags
    if processor.replaces_returns:
        return True
    if eflags & EFLAGS_VM or not processor.control(Setting.CR0) & CR0_PE:
        return False
    return not processor.long_mode if eflags & EFLAGS_NT else processor.cpl == 3


def _is_of_cr8(instruction: Instruction) -> bool:
    return any(one.type == cs.X86_OP_REG and one.reg == cs.X86_REG_CR8 for one in instruction.operands)


def _selector(instruction: Instruction) -> int | None:
    return instruction.read(instruction.operands[1], 2)


def _is_of_286(processor: Cpu, instruction: Instruction) -> bool:
    """Whether LAR or LSL ask for a system descriptor of a kind that long mode doesn't have (SDM vol. 2, LAR)."""
    selector = _selector(instruction)
    descriptor = None if selector is None or not selector & ~RPL_MASK else processor.peek_descriptor(selector)
    return descriptor is not None and descriptor >> 40 & 0x1F in _KINDS_OF_286


def _not_found(processor: Cpu, instruction: Instruction) -> None:
    processor.eflags &= ~EFLAGS_ZF
    processor.eip += instruction.size


def _null_stack(processor: Cpu, instruction: Instruction) -> None:
    """A null SS at ring 1 or 2 of 64-bit code: the engine would be at ring 0 then."""
    selector = _selector(instruction) or 0
    processor.set_segments({SegmentRegister.SS: Segment(selector, attributes=processor.cpl << DPL_SHIFT)})
    processor.eip += instruction.size
    processor.set_shadow(True)


def _pushfd(processor: Cpu, instruction: Instruction) -> None:
    """In virtual-8086 mode at IOPL 3. VM and RF are clear in what is pushed (SDM vol. 2, PUSHF)."""
    target = processor.target()
    flags = target.eflags & ~(EFLAGS_VM | EFLAGS_RF)
    processor.esp = push_all(target, target.stack, target.esp, [flags], 4, user=True)
    processor.eip += instruction.size
