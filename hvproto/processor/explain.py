"""What an exception of the engine really is: put right by a look at the instruction that raised it.

The engine takes the first access of a read-modify-write instruction for a read, knows no #SS for an address that isn't
canonical, and INT1 for an invalid opcode.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import capstone
from capstone import x86_const as cs

from hvproto.processor.engine import PendingException
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.opcodes import MAX_LENGTH, int1_length, updates_operand
from hvproto.processor.paging import ERROR_I, ERROR_W

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor

_ON_THE_STACK = frozenset({
    cs.X86_INS_PUSH, cs.X86_INS_PUSHF, cs.X86_INS_PUSHFQ, cs.X86_INS_POP, cs.X86_INS_POPF, cs.X86_INS_POPFQ,
    cs.X86_INS_CALL, cs.X86_INS_LCALL, cs.X86_INS_RET, cs.X86_INS_RETF, cs.X86_INS_RETFQ, cs.X86_INS_IRET,
    cs.X86_INS_IRETD, cs.X86_INS_IRETQ, cs.X86_INS_ENTER, cs.X86_INS_LEAVE,
})  # fmt: skip
_STACK_REGISTERS = (cs.X86_REG_RSP, cs.X86_REG_RBP, cs.X86_REG_ESP, cs.X86_REG_EBP)


def explained(processor: Processor, pending: PendingException) -> PendingException:
    """The exception by the book; EIP is that of its instruction."""
    if pending.software:
        return pending
    match pending.vector:
        case 6 if (length := int1_length(_code(processor))) is not None:
            processor.eip += length
            return PendingException(1, trap=True)
        case 14 if not (pending.error_code or 0) & (ERROR_W | ERROR_I):
            if updates_operand(_code(processor), wide=processor.code64):
                return replace(pending, error_code=(pending.error_code or 0) | ERROR_W)
        case 13 if pending.error_code == 0 and processor.code64 and _beyond_the_stack(processor):
            return PendingException(12, 0)
    return pending


def _code(processor: Processor) -> bytes:
    return processor.peek_some(processor.code_address, MAX_LENGTH)


@cache
def _decoder() -> capstone.Cs:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    return decoder


def _beyond_the_stack(processor: Processor) -> bool:
    """Whether a #GP(0) in 64-bit code is an access through SS to an address that isn't canonical: #SS(0)."""
    instruction = next(_decoder().disasm(_code(processor), processor.eip, 1), None)
    if instruction is None:
        return False
    for operand in instruction.operands:
        if operand.type == cs.X86_OP_MEM and not is_canonical(_effective(processor, instruction, operand.mem)):
            return bool(operand.mem.base in _STACK_REGISTERS)
    if instruction.id not in _ON_THE_STACK:
        return False
    rsp = processor.esp
    return not (is_canonical(rsp) and is_canonical(rsp - 8 & 0xFFFF_FFFF_FFFF_FFFF))


def _effective(processor: Processor, instruction: capstone.CsInsn, memory: capstone.x86.X86OpMem) -> int:
    def value(register: int) -> int:
        if register in (0, cs.X86_REG_RIZ, cs.X86_REG_EIZ):
            return 0
        if register == cs.X86_REG_RIP:
            return int(instruction.address + instruction.size)
        return processor.register(instruction.reg_name(register))

    bases = {cs.X86_REG_FS: processor.segment_base("fs"), cs.X86_REG_GS: processor.segment_base("gs")}
    base = bases.get(memory.segment, 0)
    address: int = value(memory.base) + value(memory.index) * memory.scale + memory.disp
    if instruction.addr_size == 4:
        address &= 0xFFFF_FFFF
    return base + address & 0xFFFF_FFFF_FFFF_FFFF
