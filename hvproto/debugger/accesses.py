"""What an instruction will read and write in memory, by a look at it before it is executed."""

from __future__ import annotations

from capstone import x86_const as cs

from hvproto.processor.instruction import Instruction, instruction_at
from hvproto.processor.processor import Processor

READ, WRITE = 1, 2
_PUSHES = frozenset({cs.X86_INS_PUSH, cs.X86_INS_CALL, cs.X86_INS_PUSHFD, cs.X86_INS_PUSHFQ, cs.X86_INS_PUSHF})
_POPS = frozenset(
    {cs.X86_INS_POP, cs.X86_INS_RET, cs.X86_INS_POPFD, cs.X86_INS_POPFQ, cs.X86_INS_POPF, cs.X86_INS_LEAVE}
)


def accesses(processor: Processor) -> list[tuple[int, int, int]]:
    """(linear address, bytes, READ and WRITE) of the instruction at CS:EIP: operands, PUSH, POP, CALL and RET.

    What an interrupt, a task switch or PUSHA does to memory isn't among it.
    """
    instruction = instruction_at(processor)
    if instruction is None:
        return []
    found = []
    if instruction.id not in (cs.X86_INS_LEA, cs.X86_INS_NOP):
        for operand in instruction.operands:
            if operand.type == cs.X86_OP_MEM:
                kind = operand.access & (READ | WRITE)
                found.append((instruction.linear_address(operand.mem), max(operand.size, 1), kind or READ))
    stack = _of_stack(processor, instruction)
    return found if stack is None else [*found, stack]


def _of_stack(processor: Processor, instruction: Instruction) -> tuple[int, int, int] | None:
    size = 8 if processor.code64 else instruction.operand_size
    base = 0 if processor.code64 else processor.stack.base
    if instruction.id in _PUSHES:
        return processor.wrapped(base + processor.esp - size), size, WRITE
    if instruction.id in _POPS:
        return processor.wrapped(base + processor.esp), size, READ
    return None
