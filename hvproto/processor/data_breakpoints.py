"""Data breakpoints of DR0 to DR3 (SDM vol. 3, 17.2.4 and 17.2.5), which the engine doesn't have.

While the guest has one enabled, instructions are executed one at a time, and each is asked before what it will access.
That costs some 100 us an instruction, and nothing while none is enabled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import capstone
from capstone import x86_const as cs

from hvproto.processor.instruction import Instruction
from hvproto.processor.segments import SegmentRegister

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu

_WRITE, _READ_WRITE = 1, 3
_LENGTHS = (1, 2, 8, 4)
_NO_ACCESS = frozenset({cs.X86_INS_LEA, cs.X86_INS_NOP, cs.X86_INS_INVLPG, cs.X86_INS_PREFETCH, cs.X86_INS_PREFETCHW})
_PUSHES = frozenset({cs.X86_INS_PUSH, cs.X86_INS_PUSHF, cs.X86_INS_PUSHFD, cs.X86_INS_PUSHFQ, cs.X86_INS_CALL})
_POPS = frozenset({
    cs.X86_INS_POP, cs.X86_INS_POPF, cs.X86_INS_POPFD, cs.X86_INS_POPFQ, cs.X86_INS_RET, cs.X86_INS_IRET,
    cs.X86_INS_IRETD, cs.X86_INS_IRETQ,
})  # fmt: skip
_STORES = frozenset({
    cs.X86_INS_MOV, cs.X86_INS_MOVSB, cs.X86_INS_MOVSW, cs.X86_INS_MOVSD, cs.X86_INS_MOVSQ, cs.X86_INS_STOSB,
    cs.X86_INS_STOSW, cs.X86_INS_STOSD, cs.X86_INS_STOSQ, cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD,
})  # fmt: skip
_READ_ONLY_PAIRS = frozenset({cs.X86_INS_CMP, cs.X86_INS_TEST, cs.X86_INS_BT, cs.X86_INS_PUSH, cs.X86_INS_CALL,
                              cs.X86_INS_JMP})  # fmt: skip


class _Breakpoint(NamedTuple):
    number: int
    begin: int
    size: int
    reads_too: bool


class _Access(NamedTuple):
    begin: int
    size: int
    reads: bool
    writes: bool


class DataBreakpoints:
    """Those that the guest has enabled in DR7."""

    def __init__(self) -> None:
        self._enabled: list[_Breakpoint] = []
        self._held = 0
        """Hits of a load of SS, which are reported after the next instruction (SDM vol. 3, 6.8.3)."""
        self._held_before = 0

    def __bool__(self) -> bool:
        return bool(self._enabled)

    def refresh(self, processor: Cpu) -> None:
        """Take over what the debug registers say now."""
        dr7 = processor.debug_register(7)
        self._enabled = []
        for index in range(4):
            kind = dr7 >> 16 + 4 * index & 3
            if dr7 >> 2 * index & 3 and kind in (_WRITE, _READ_WRITE):
                size = _LENGTHS[dr7 >> 18 + 4 * index & 3]
                begin = processor.debug_register(index) & ~(size - 1)
                self._enabled.append(_Breakpoint(index, begin, size, kind == _READ_WRITE))

    def hits(self, processor: Cpu, instruction: Instruction | None) -> int:
        """The bits of DR6 that the instruction at EIP is going to set, once it is done."""
        held, self._held = self._held, 0
        self._held_before = held
        if instruction is None:
            return held
        found = 0
        for access in _accesses(processor, instruction):
            for number, begin, size, reads_too in self._enabled:
                overlaps = access.begin < begin + size and begin < access.begin + access.size
                if overlaps and (access.writes or (reads_too and access.reads)):
                    found |= 1 << number
        if instruction.loads(cs.X86_REG_SS):
            self._held, found = found, 0
        return held | found

    def take_back(self) -> None:
        """The instruction that was asked about has not been executed, and will be asked about once more."""
        self._held = self._held_before


def _accesses(processor: Cpu, instruction: Instruction) -> list[_Access]:
    """What an instruction reads and writes in linear memory: its operands and the stack; not descriptors."""
    found = []
    if instruction.id not in _NO_ACCESS:
        for index, operand in enumerate(instruction.operands):
            if operand.type == cs.X86_OP_MEM:
                reads, writes = bool(operand.access & capstone.CS_AC_READ), bool(operand.access & capstone.CS_AC_WRITE)
                if not reads and not writes:
                    writes = index == 0 and instruction.id not in _READ_ONLY_PAIRS
                    reads = not (writes and instruction.id in _STORES)
                found.append(_Access(instruction.linear_address(operand.mem), max(operand.size, 1), reads, writes))
    size = 8 if processor.code64 else instruction.operand_size
    base = 0 if processor.code64 else processor.segment(SegmentRegister.SS).base
    if instruction.id in _PUSHES:
        found.append(_Access(processor.wrapped(base + processor.esp - size), size, False, True))
    elif instruction.id in _POPS:
        found.append(_Access(processor.wrapped(base + processor.esp), size, True, False))
    return found
