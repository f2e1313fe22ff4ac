"""JMP and CALL through call gates of 16, 32 and 64 bits (SDM vol. 3, 5.8.3 to 5.8.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.processor import far_code
from hvproto.processor.exceptions import Raised, descriptor_place
from hvproto.processor.far_memory import Stack, current_stack
from hvproto.processor.long_mode import LINEAR_64, TSS_RSP0, is_canonical
from hvproto.processor.protected_mode import inner_stack
from hvproto.processor.segments import TSS32_AVAILABLE, TSS_BUSY_BIT, Segment

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

CALL_GATE_16, CALL_GATE_32 = 0x4, 0xC
"""The latter is the one of 64 bits in long mode."""
INVALID_TSS, STACK_FAULT, PROTECTION = 10, 12, 13


class CallGate:
    """A call gate's fields; its privilege and presence have been checked."""

    def __init__(self, target: LiveTarget, selector: int, raw: int) -> None:
        """``raw``: its first 8 bytes. Raises `Raised`."""
        narrow = raw >> 40 & 0xF == CALL_GATE_16
        self.selector = raw >> 16 & 0xFFFF
        self.offset = raw & 0xFFFF | (0 if narrow else raw >> 32 & 0xFFFF_0000)
        self.parameters = raw >> 32 & 0x1F
        self.size = 2 if narrow else 4
        if target.long_mode:
            self.offset |= _upper_offset(target, selector) << 32
            self.parameters = 0
            self.size = 8


def _upper_offset(target: LiveTarget, selector: int) -> int:
    """From the second half of a gate of 16 bytes, whose type must be 0 (SDM vol. 3, 5.8.3.1)."""
    error = far_code.error_of(selector)
    try:
        place = descriptor_place(target, selector + 8)
    except Raised:
        raise Raised(PROTECTION, error) from None
    high = target.read(place & LINEAR_64, 8)
    if high >> 40 & 0x1F:
        raise Raised(PROTECTION, error)
    return high & 0xFFFF_FFFF


def jump(processor: Cpu, target: LiveTarget, gate: CallGate) -> None:
    """JMP: to the same privilege level only. Raises `Raised`."""
    code = far_code.code_behind_gate(target, gate.selector, call=False)
    far_code.enter(processor, target, code, far_code.checked_offset(target, code, gate.offset))


def call(processor: Cpu, target: LiveTarget, gate: CallGate, after: int) -> None:
    """CALL: to the same or an inner privilege level; ``after`` is the EIP behind it. Raises `Raised`."""
    code = far_code.code_behind_gate(target, gate.selector, call=True)
    if code.is_conforming or code.dpl == target.cpl:
        offset = far_code.checked_offset(target, code, gate.offset)
        stack = current_stack(processor, target, wide=target.long_mode)
        stack.push(gate.size, target.code.selector, after)
        far_code.enter(processor, target, code, offset, pointer=stack.pointer)
    else:
        _call_inward(processor, target, gate, code, after)


def _call_inward(processor: Cpu, target: LiveTarget, gate: CallGate, code: Segment, after: int) -> None:
    """A stack of the inner ring comes from the TSS, and the parameters with it (SDM vol. 3, 5.8.5)."""
    level = code.dpl
    segment, top = _stack_of_long_mode(target, level) if target.long_mode else inner_stack(target, level, 0)
    offset = far_code.checked_offset(target, code, gate.offset)
    old = current_stack(processor, target)
    new = Stack(processor, target, segment, top, wide=target.long_mode, level=level)
    parameters = [old.peek(gate.size * index, gate.size) for index in reversed(range(gate.parameters))]
    new.push(gate.size, target.stack.selector, target.esp, *parameters, target.code.selector, after)
    far_code.enter(processor, target, code, offset, level=level, stack=segment, pointer=new.pointer)


def _stack_of_long_mode(target: LiveTarget, level: int) -> tuple[Segment, int]:
    tr = target.tr
    at = TSS_RSP0 + 8 * level
    if tr.system_type & ~TSS_BUSY_BIT != TSS32_AVAILABLE or at + 7 > tr.limit:
        raise Raised(INVALID_TSS, far_code.error_of(tr.selector))
    rsp = target.read(tr.base + at & LINEAR_64, 8)
    if not is_canonical(rsp):
        raise Raised(STACK_FAULT, 0)
    return far_code.null_stack(level), rsp
