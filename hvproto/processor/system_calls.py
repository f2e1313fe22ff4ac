"""SYSCALL and SYSENTER, of which the engine does nothing but call back, and SYSRET and SYSEXIT (SDM vol. 2, each).

The engine's own SYSRET takes bits of R11 that it may not take, and its SYSEXIT has no operand size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.engine import SystemCall
from hvproto.processor.exceptions import Raised
from hvproto.processor.instruction import Instruction
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.segments import DEFAULT_BIG, LONG, RPL_MASK, Segment, SegmentRegister, flat
from hvproto.processor.settings import (
    EFER_SCE,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_RF,
    EFLAGS_VM,
    FMASK_MSR,
    LSTAR_MSR,
    STAR_MSR,
    SYSENTER_CS_MSR,
    SYSENTER_EIP_MSR,
    SYSENTER_ESP_MSR,
    Setting,
)

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu

LOCK = 0xF0
RCX, RDX, RSP, R11 = 1, 2, 4, 11
SYSRET_FLAGS = 0x24_7FD7
"""What SYSRET takes of R11: neither RF nor VM, nor reserved bits; nor VIF and VIP, since there is no VME."""


def perform(processor: Cpu, call: SystemCall, after: int) -> None:
    """Do what the instruction at EIP does; ``after`` is the EIP behind it. Raises `Raised`, with nothing changed."""
    prefixes = processor.peek(processor.code_address, after - processor.eip - 2)
    if LOCK in (prefixes or b""):
        raise Raised(6)
    if call is SystemCall.SYSCALL:
        _syscall(processor, after)
    else:
        _sysenter(processor)


def _syscall(processor: Cpu, after: int) -> None:
    if not processor.code64 or not processor.control(Setting.EFER) & EFER_SCE:
        raise Raised(6)
    eflags = processor.eflags
    processor.set_gpr(RCX, after)
    processor.set_gpr(R11, eflags)
    _enter_ring_0(processor, processor.msr(STAR_MSR) >> 32 & 0xFFFF, wide=True)
    processor.eflags = eflags & ~(processor.msr(FMASK_MSR) | EFLAGS_RF)
    processor.eip = processor.msr(LSTAR_MSR)


def _sysenter(processor: Cpu) -> None:
    selector = processor.msr(SYSENTER_CS_MSR) & 0xFFFF
    if not selector & ~RPL_MASK:
        raise Raised(13, 0)
    wide = processor.long_mode
    processor.eflags &= ~(EFLAGS_VM | EFLAGS_IF | EFLAGS_RF)
    _enter_ring_0(processor, selector, wide=wide)
    processor.set_gpr(RSP, processor.msr(SYSENTER_ESP_MSR))
    processor.eip = processor.msr(SYSENTER_EIP_MSR)


def sysret(processor: Cpu, instruction: Instruction) -> None:
    """Back to ring 3 from a SYSCALL: flat segments by STAR, RIP from RCX, RFLAGS from R11. Raises `Raised`."""
    efer = processor.control(Setting.EFER)
    if not processor.code64 or not efer & EFER_SCE:
        raise Raised(6)
    if processor.cpl != 0:
        raise Raised(13, 0)
    wide = instruction.operand_size == 8
    target = processor.gpr(RCX)
    if wide and not is_canonical(target):
        raise Raised(13, 0)
    selector = processor.msr(STAR_MSR) >> 48 & 0xFFFF
    eflags = processor.gpr(R11) & SYSRET_FLAGS | EFLAGS_FIXED
    _leave_for_ring_3(processor, selector + (16 if wide else 0), selector + 8, wide=wide)
    processor.eflags = eflags
    processor.eip = target if wide else target & 0xFFFF_FFFF


def sysexit(processor: Cpu, instruction: Instruction) -> None:
    """Back to ring 3 from a SYSENTER: EIP from EDX, ESP from ECX. Raises `Raised`."""
    selector = processor.msr(SYSENTER_CS_MSR) & 0xFFFF
    if not selector & ~RPL_MASK or processor.cpl != 0:
        raise Raised(13, 0)
    wide = processor.long_mode and instruction.operand_size == 8
    mask = 0xFFFF_FFFF_FFFF_FFFF if wide else 0xFFFF_FFFF
    target, stack = processor.gpr(RDX) & mask, processor.gpr(RCX) & mask
    if not (is_canonical(target) and is_canonical(stack)):
        raise Raised(13, 0)
    first = selector + (32 if wide else 16)
    _leave_for_ring_3(processor, first, first + 8, wide=wide)
    processor.set_gpr(RSP, stack)
    processor.eip = target


def _leave_for_ring_3(processor: Cpu, code_selector: int, stack_selector: int, *, wide: bool) -> None:
    code = flat((code_selector | 3) & 0xFFFF, code=True, dpl=3)
    if wide:
        code = Segment(code.selector, code.base, code.limit, code.attributes & ~DEFAULT_BIG | LONG)
    stack = flat((stack_selector | 3) & 0xFFFF, code=False, dpl=3)
    processor.set_segments({SegmentRegister.CS: code, SegmentRegister.SS: stack})


def _enter_ring_0(processor: Cpu, selector: int, *, wide: bool) -> None:
    """Flat segments by the selectors of an MSR; the descriptor tables aren't looked at."""
    selector &= ~RPL_MASK
    code = flat(selector, code=True, dpl=0)
    if wide:
        code = Segment(code.selector, code.base, code.limit, code.attributes & ~DEFAULT_BIG | LONG)
    stack = flat(selector + 8 & 0xFFFF, code=False, dpl=0)
    processor.set_segments({SegmentRegister.CS: code, SegmentRegister.SS: stack})
