"""Far JMP, CALL and RET in protected mode, by the manual (SDM vol. 2, JMP, CALL, RET; vol. 3, 5.8).

The engine's own take the high word of a 16-bit gate's offset for good, don't mark descriptors as accessed, and know
little of what may fault in a task switch. They are rare enough in any kernel to be done here instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hvproto.processor import far_code, far_gates
from hvproto.processor.exceptions import Raised, descriptor_place, load_descriptor
from hvproto.processor.far_gates import CALL_GATE_16, CALL_GATE_32, CallGate
from hvproto.processor.far_kinds import FarKind, far_kind
from hvproto.processor.far_memory import current_stack, read_pointer
from hvproto.processor.far_return import far_return
from hvproto.processor.instruction import Instruction
from hvproto.processor.protected_mode import TASK_GATE
from hvproto.processor.segments import TSS16_AVAILABLE, TSS32_AVAILABLE, Segment
from hvproto.processor.settings import CR0_PE, EFLAGS_VM, Setting
from hvproto.processor.task_switch import switch_by_branch

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.live_target import LiveTarget

NOT_PRESENT, PROTECTION = 11, 13
_TASKS = (TASK_GATE, TSS16_AVAILABLE, TSS32_AVAILABLE)


def replacement(processor: Cpu, instruction: Instruction) -> Callable[[], None] | None:
    """What to do instead of the instruction at EIP, or None if the engine is to execute it.

    What is done raises `Raised` for the instruction's fault; nothing has changed then, unless it is ``committed``.
    """
    kind = far_kind(instruction.code, wide=processor.code64)
    if kind is None or not processor.control(Setting.CR0) & CR0_PE or processor.eflags & EFLAGS_VM:
        return None
    if kind is FarKind.RET:
        return partial(far_return, processor, instruction)
    return partial(_branch, processor, instruction, kind)


def _branch(processor: Cpu, instruction: Instruction, kind: FarKind) -> None:
    """JMP or CALL: to a code segment, or to what a system descriptor stands for."""
    if kind in (FarKind.JMP_MEMORY, FarKind.CALL_MEMORY):
        selector, offset = read_pointer(processor, instruction)
    else:
        selector, offset = (operand.imm for operand in instruction.operands)
        selector &= 0xFFFF
    offset &= (1 << 8 * instruction.operand_size) - 1
    target = processor.target()
    after = processor.eip + instruction.size & (0xFFFF_FFFF_FFFF_FFFF if processor.code64 else 0xFFFF_FFFF)
    found = load_descriptor(target, selector)
    if found.is_system:
        _by_descriptor(processor, target, found, after, call=kind.is_call)
    elif not found.is_code:
        raise Raised(PROTECTION, far_code.error_of(selector))
    else:
        size = instruction.operand_size if kind.is_call else 0
        _to_code(processor, target, found, offset, after, size)


def _to_code(processor: Cpu, target: LiveTarget, code: Segment, offset: int, after: int, size: int) -> None:
    """Straight to a code segment; ``size`` is that of what CALL pushes, 0 for JMP."""
    far_code.check_directly(target, code)
    offset = far_code.checked_offset(target, code, offset)
    stack = current_stack(processor, target)
    if size:
        stack.push(size, target.code.selector, after)
    far_code.enter(processor, target, code, offset, pointer=stack.pointer if size else None)


def _by_descriptor(processor: Cpu, target: LiveTarget, found: Segment, after: int, *, call: bool) -> None:
    """Through a call gate or a task gate, or to a task. A gate's DPL counts against CPL and RPL (SDM vol. 3, 5.8.4)."""
    kind, error = found.system_type, far_code.error_of(found.selector)
    is_gate = kind == CALL_GATE_32 or (kind == CALL_GATE_16 and not target.long_mode)
    is_task = kind in _TASKS and not target.long_mode
    if not (is_gate or is_task) or found.dpl < target.cpl or found.dpl < found.rpl:
        raise Raised(PROTECTION, error)
    if is_task and kind != TASK_GATE:
        switch_by_branch(processor, target, found.selector, after, nested=call)
        return
    if not found.present:
        raise Raised(NOT_PRESENT, error)
    raw = target.read(descriptor_place(target, found.selector), 8)
    if is_task:
        switch_by_branch(processor, target, raw >> 16 & 0xFFFF, after, nested=call)
        return
    gate = CallGate(target, found.selector, raw)
    if call:
        far_gates.call(processor, target, gate, after)
    else:
        far_gates.jump(processor, target, gate)
