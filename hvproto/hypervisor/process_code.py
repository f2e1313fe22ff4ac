"""Which instructions of a guest inside a process must trap, and where they are (plan `application`).

The host's page table has no bit against execution, so no fault tells what is about to be executed. Here the processor's
translator does: each basic block that it translates of the guest's is looked at, and what is sensitive in it gets a
trap, which is raised as #GP and travels through the host like any other.
"""

from __future__ import annotations

from collections.abc import Callable

from capstone import CS_MODE_32, CsInsn
from capstone import x86_const as cs

from hvproto.hypervisor.sensitive import (
    LONGEST_INSTRUCTION,
    SEGMENT_LOADS,
    SEGMENT_NUMBERS,
    CodeKind,
    Decoder,
    is_sensitive,
)
from hvproto.processor.processor import Processor
from hvproto.processor.settings import CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR

INVALID_OPCODE, NOT_AVAILABLE = 6, 7
_MOVES = frozenset({cs.X86_INS_MOV, cs.X86_INS_PUSH, cs.X86_INS_POP})
_SSE = frozenset(getattr(cs, f"X86_GRP_{name}") for name in ("SSE1", "SSE2", "SSE3", "SSSE3", "SSE41", "SSE42"))
_TIME = frozenset({cs.X86_INS_RDTSC, cs.X86_INS_RDTSCP})


def touches_segments(instruction: CsInsn) -> bool:
    """Whether it reads or loads a segment register: a process has the host's selectors in them, not the guest's."""
    if instruction.id in SEGMENT_LOADS:
        return True
    return instruction.id in _MOVES and any(
        operand.type == cs.X86_OP_REG and operand.reg in SEGMENT_NUMBERS for operand in instruction.operands
    )


def is_sse(instruction: CsInsn) -> bool:
    """Whether it needs CR4.OSFXSR."""
    return not _SSE.isdisjoint(instruction.groups)


def floating_point_fault(instruction: CsInsn, cr0: int, cr4: int) -> int | None:
    """The vector with which an x87, MMX or SSE instruction faults (SDM vol. 3, 2.5 and 13.1), or None."""
    if instruction.id == cs.X86_INS_WAIT:
        return NOT_AVAILABLE if cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS else None
    if cs.X86_GRP_FPU in instruction.groups:
        return NOT_AVAILABLE if cr0 & (CR0_EM | CR0_TS) else None
    if is_sse(instruction) and not cr4 & CR4_OSFXSR:
        return INVALID_OPCODE
    if cs.X86_GRP_MMX in instruction.groups or is_sse(instruction):
        return INVALID_OPCODE if cr0 & CR0_EM else NOT_AVAILABLE if cr0 & CR0_TS else None
    return None


class ProcessCode:
    """The traps in the code of one process's guest; ``controls`` gives the guest's own CR0 and CR4."""

    def __init__(self, processor: Processor, decoder: Decoder, controls: Callable[[], tuple[int, int]]) -> None:
        self._controls = controls
        self._processor = processor
        self._decoder = decoder
        self._kind = CodeKind(int(CS_MODE_32))
        self._ports = not processor.engine.traps_port_io
        self._planted: set[int] = set()

    def look(self, address: int, size: int) -> bool:
        """Plant what a block needs that has been translated; True if it must be translated anew."""
        code = self._processor.peek_some(address, size)
        found = False
        at = 0
        while at < len(code):
            instruction = self._decoder.decode(code[at : at + LONGEST_INSTRUCTION], self._kind.mode)
            if instruction is None:
                break
            if self._may_trap(instruction) and address + at not in self._planted:
                self._planted.add(address + at)
                self._processor.engine.plant(address + at)
                found = True
            at += instruction.size
        return found

    def is_trap(self, address: int) -> bool:
        """Whether the instruction that is there now has to trap."""
        if address not in self._planted:
            return False
        code = self._processor.peek_some(address, LONGEST_INSTRUCTION)
        instruction = self._decoder.decode(code, self._kind.mode)
        return instruction is not None and (
            self._is_sensitive(instruction) or floating_point_fault(instruction, *self._controls()) is not None
        )

    def _may_trap(self, instruction: CsInsn) -> bool:
        return (
            self._is_sensitive(instruction)
            or floating_point_fault(instruction, CR0_EM | CR0_MP | CR0_TS, 0) is not None
        )

    def _is_sensitive(self, instruction: CsInsn) -> bool:
        if instruction.id in _TIME or touches_segments(instruction):
            return True
        return is_sensitive(instruction, self._kind, ports=self._ports)
