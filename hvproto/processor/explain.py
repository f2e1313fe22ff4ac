"""What an exception of the engine really is: put right by a look at the instruction that raised it.

The engine is right about most. Each function here is about one thing that it isn't right about, is asked only where
that may be the case, and gives the exception by the manual, or None if the engine's is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from capstone import x86_const as cs

from hvproto.addresses import PAGE_SIZE, page_of, page_offset
from hvproto.processor.engine import PendingException
from hvproto.processor.exceptions import DEBUG_VECTOR, Raised
from hvproto.processor.instruction import instruction_at
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.opcodes import MAX_LENGTH, int1_length, updates_operand
from hvproto.processor.paging import ERROR_I, ERROR_U, ERROR_W, Access, fault_code
from hvproto.processor.settings import CR0_EM, CR4_OSFXSR, Setting

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor

INVALID, STACK, PROTECTION, PAGE_FAULT = 6, 12, 13, 14
RSP = 4
_PUSHES_OR_POPS = frozenset({
    cs.X86_INS_PUSH, cs.X86_INS_PUSHF, cs.X86_INS_PUSHFQ, cs.X86_INS_POP, cs.X86_INS_POPF, cs.X86_INS_POPFQ,
    cs.X86_INS_CALL, cs.X86_INS_LCALL, cs.X86_INS_RET, cs.X86_INS_RETF, cs.X86_INS_RETFQ, cs.X86_INS_IRET,
    cs.X86_INS_IRETD, cs.X86_INS_IRETQ, cs.X86_INS_ENTER,
})  # fmt: skip
_STRING_IO = frozenset({
    cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD, cs.X86_INS_OUTSB, cs.X86_INS_OUTSW, cs.X86_INS_OUTSD,
})  # fmt: skip


def explained(processor: Processor, pending: PendingException) -> PendingException:
    """The exception by the manual; EIP is that of its instruction."""
    if pending.software:
        return pending
    found = None
    match pending.vector:
        case 6:
            found = _int1(processor)
        case 7:
            found = _no_extension(processor)
        case 13 if not pending.error_code and processor.code64:
            found = _not_canonical(processor)
        case 14 if not _is_fetch(processor, pending):
            found = _port_first(processor) or _update(processor, pending)
    return found or pending


def is_premature(processor: Processor, pending: PendingException) -> bool:
    """Whether a page fault may be one of a later instruction: the engine translates a few at once.

    It reports a fetch beyond the page's end at the first of them. An instruction alone has only its own faults.
    """
    if pending.vector != PAGE_FAULT or pending.software:
        return False
    return processor.cr2 == page_of(processor.code_address) + PAGE_SIZE


def _code(processor: Processor) -> bytes:
    return processor.peek_some(processor.code_address, MAX_LENGTH)


def _int1(processor: Processor) -> PendingException | None:
    """INT1 is an invalid opcode to the engine. It traps: the handler goes on behind it (SDM vol. 2, INT n)."""
    length = int1_length(_code(processor))
    return None if length is None else PendingException(DEBUG_VECTOR, length=length)


def _no_extension(processor: Processor) -> PendingException | None:
    """MMX and SSE aren't emulated but switched off: #UD, and before any #NM (SDM vol. 3, tables 13-1 and 12-1)."""
    instruction = instruction_at(processor)
    if instruction is None or instruction.id in (cs.X86_INS_FXSAVE, cs.X86_INS_FXRSTOR):
        return None
    emulated = bool(processor.control(Setting.CR0) & CR0_EM)
    if instruction.is_sse:
        return PendingException(INVALID) if emulated or not processor.control(Setting.CR4) & CR4_OSFXSR else None
    return PendingException(INVALID) if emulated and instruction.is_mmx else None


def _not_canonical(processor: Processor) -> PendingException | None:
    """An address that isn't canonical: #SS where it is of the stack, and at the branch that leads to such code."""
    if not is_canonical(processor.eip):
        _back_to_the_branch(processor)
        return None
    instruction = instruction_at(processor)
    if instruction is None:
        return None
    memory = instruction.memory_operand()
    if memory is not None and not is_canonical(instruction.linear_address(memory.mem)):
        by_stack = instruction.through_stack_segment(memory.mem)
    elif instruction.id == cs.X86_INS_LEAVE:
        by_stack = not is_canonical(processor.gpr(5))
    else:
        rsp = processor.esp
        by_stack = instruction.id in _PUSHES_OR_POPS and not (
            is_canonical(rsp) and is_canonical(rsp - 8 & (1 << 64) - 1)
        )
    return PendingException(STACK, 0) if by_stack else None


def _back_to_the_branch(processor: Processor) -> None:
    """Undo a near branch to an address that isn't canonical: it would have faulted itself (SDM vol. 2, JMP, RET)."""
    begin, end = processor.engine.last_block
    base = processor.code.base
    at, last = begin, None
    while at < end:
        instruction = instruction_at(processor, at - base)
        if instruction is None:
            return
        at, last = at + instruction.size, (at, instruction)
    if last is None or at != end:
        return
    address, instruction = last
    if instruction.id == cs.X86_INS_RET:
        released = instruction.operands[0].imm if instruction.operands else 0
        processor.set_gpr(RSP, processor.gpr(RSP) - 8 - released)
    elif instruction.id == cs.X86_INS_CALL:
        processor.set_gpr(RSP, processor.gpr(RSP) + 8)
    elif instruction.id != cs.X86_INS_JMP:
        return
    processor.eip = address - base


def _is_fetch(processor: Processor, pending: PendingException) -> bool:
    """Whether a page fault is that of fetching the instruction; without NX the error code doesn't tell."""
    error = pending.error_code or 0
    if error & ERROR_I:
        return True
    if processor.cr2 - processor.code_address not in range(MAX_LENGTH):
        return False
    user = bool(error & ERROR_U)
    return fault_code(processor.paging_mode, processor.walk(processor.cr2), Access.FETCH, user=user) is not None


def _port_first(processor: Processor) -> PendingException | None:
    """INS and OUTS ask for the port before they touch memory (SDM vol. 2, INS and OUTS)."""
    instruction = instruction_at(processor)
    if instruction is None or instruction.id not in _STRING_IO:
        return None
    size = 1 if not instruction.code[-1] & 1 else min(4, instruction.operand_size)
    try:
        allowed = processor.port_allowed(processor.gpr(2) & 0xFFFF, size)
    except Raised as fault:
        return PendingException(fault.vector, fault.error_code)
    if allowed:
        return None
    processor.cr2 = processor.engine.cr2_before
    return PendingException(PROTECTION, 0)


def _update(processor: Processor, pending: PendingException) -> PendingException | None:
    """A read of an operand that is to be written, too: W is set, and rights to write are looked for first."""
    error = pending.error_code or 0
    if not updates_operand(_code(processor), wide=processor.code64):
        return None
    if error & ERROR_W:
        processor.engine.unmark_read(processor.cr2)
        return None
    instruction = instruction_at(processor)
    memory = instruction.memory_operand() if instruction is not None else None
    if instruction is not None and memory is not None and page_offset(processor.cr2) == 0:
        first = instruction.linear_address(memory.mem)
        if page_of(first) != processor.cr2:  # it crosses into the page that can't be read: can the first be written?
            user = bool(error & ERROR_U)
            refused = fault_code(processor.paging_mode, processor.walk(first), Access.WRITE, user=user)
            if refused is not None:
                processor.engine.unmark_read(first)
                processor.cr2 = first
                return PendingException(PAGE_FAULT, refused)
    return replace(pending, error_code=error | ERROR_W)
