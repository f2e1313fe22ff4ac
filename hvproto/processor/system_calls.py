"""SYSCALL and SYSENTER, of which the engine does nothing but call back (SDM vol. 2, SYSCALL and SYSENTER).

SYSRET and SYSEXIT are the engine's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor.engine import SystemCall
from hvproto.processor.exceptions import Raised
from hvproto.processor.segments import DEFAULT_BIG, LONG, RPL_MASK, Segment, SegmentRegister, flat
from hvproto.processor.settings import (
    EFER_SCE,
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
    from hvproto.processor.processor import Processor

LOCK = 0xF0
RCX, RSP, R11 = 1, 4, 11


def perform(processor: Processor, call: SystemCall, after: int) -> None:
    """Do what the instruction at EIP does; ``after`` is the EIP behind it. Raises `Raised`, with nothing changed."""
    prefixes = processor.peek(processor.code_address, after - processor.eip - 2)
    if LOCK in (prefixes or b""):
        raise Raised(6)
    if call is SystemCall.SYSCALL:
        _syscall(processor, after)
    else:
        _sysenter(processor)


def _syscall(processor: Processor, after: int) -> None:
    if not processor.code64 or not processor.control(Setting.EFER) & EFER_SCE:
        raise Raised(6)
    engine = processor.engine
    eflags = processor.eflags
    processor.set_gpr(RCX, after)
    processor.set_gpr(R11, eflags)
    _enter_ring_0(processor, engine.read_msr(STAR_MSR) >> 32 & 0xFFFF, wide=True)
    processor.eflags = eflags & ~(engine.read_msr(FMASK_MSR) | EFLAGS_RF)
    processor.eip = engine.read_msr(LSTAR_MSR)


def _sysenter(processor: Processor) -> None:
    engine = processor.engine
    selector = engine.read_msr(SYSENTER_CS_MSR) & 0xFFFF
    if not selector & ~RPL_MASK:
        raise Raised(13, 0)
    wide = processor.long_mode
    processor.eflags &= ~(EFLAGS_VM | EFLAGS_IF | EFLAGS_RF)
    _enter_ring_0(processor, selector, wide=wide)
    processor.set_gpr(RSP, engine.read_msr(SYSENTER_ESP_MSR))
    processor.eip = engine.read_msr(SYSENTER_EIP_MSR)


def _enter_ring_0(processor: Processor, selector: int, *, wide: bool) -> None:
    """Flat segments by the selectors of an MSR; the descriptor tables aren't looked at."""
    selector &= ~RPL_MASK
    code = flat(selector, code=True, dpl=0)
    if wide:
        code = Segment(code.selector, code.base, code.limit, code.attributes & ~DEFAULT_BIG | LONG)
    stack = flat(selector + 8 & 0xFFFF, code=False, dpl=0)
    processor.set_segments({SegmentRegister.CS: code, SegmentRegister.SS: stack})
