"""Far JMP, CALL and RET of real and virtual-8086 mode, where no table says what a selector means (SDM vol. 3, 20)."""

from __future__ import annotations

from dataclasses import replace

from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised
from hvproto.processor.far_kinds import FarKind, far_kind
from hvproto.processor.far_memory import current_stack, read_pointer
from hvproto.processor.instruction import Instruction
from hvproto.processor.segments import Segment, SegmentRegister, v86_segment
from hvproto.processor.settings import EFLAGS_VM

PROTECTION = 13


def far_transfer(cpu: VirtualCpu, instruction: Instruction) -> bool:
    """Do it; False if the instruction is none. Raises `Raised`, with nothing changed."""
    kind = far_kind(instruction.code, wide=False)
    if kind is None:
        return False
    size = instruction.operand_size
    stack = current_stack(cpu, cpu.target())
    if kind is FarKind.RET:
        released = instruction.operands[0].imm & 0xFFFF if instruction.operands else 0
        offset, selector = stack.peek(0, size), stack.peek(size, size) & 0xFFFF
        _go(cpu, selector, offset, stack.moved(2 * size + released))
        return True
    if kind in (FarKind.JMP_MEMORY, FarKind.CALL_MEMORY):
        selector, offset = read_pointer(cpu, instruction)
    else:
        selector, offset = (operand.imm for operand in instruction.operands)
    selector, offset = selector & 0xFFFF, offset & (1 << 8 * size) - 1
    if offset > cpu.code.limit:
        raise Raised(PROTECTION, 0)
    if kind.is_call:
        stack.push(size, cpu.code.selector, cpu.eip + instruction.size)
    _go(cpu, selector, offset, stack.pointer)
    return True


def _go(cpu: VirtualCpu, selector: int, offset: int, pointer: int) -> None:
    if offset > cpu.code.limit:
        raise Raised(PROTECTION, 0)
    cpu.set_segments({SegmentRegister.CS: code_segment(cpu, selector)})
    cpu.eip = offset
    cpu.esp = pointer


def code_segment(cpu: VirtualCpu, selector: int) -> Segment:
    """What CS holds after a transfer to this selector."""
    if cpu.eflags & EFLAGS_VM:
        return v86_segment(selector)
    return replace(cpu.code, selector=selector, base=selector << 4)
