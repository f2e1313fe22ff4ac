"""The lookout: instructions that the engine gets wrong are found as it translates code, and looked at before they run.

The engine calls back for each basic block that it translates. If such an instruction is among its bytes, a hook is
planted on it, which costs nothing anywhere else, and the block is translated anew. What the hook then does is a matter
of `guards`.

A hook has a linear address, and each address space may have another instruction there: host and guest, say. Whether a
translation calls the hook is settled as it is made. So one of another instruction is made without: the hook steps
aside for that long. What is wrong in a translation is found before it runs: no time passes, and nothing is noticed.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import capstone
from capstone import x86_const as cs

from hvproto.processor.far_kinds import far_kind
from hvproto.processor.instruction import KNOWN, decoder, first_instruction
from hvproto.processor.opcodes import MAX_LENGTH, has_forbidden_lock, is_refused

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor

_CANDIDATES = re.compile(
    rb"\xf0|\x8f"  # LOCK; what is no POP
    rb"|\x66\x9c"  # PUSHFD in 16-bit code
    rb"|[\x9a\xea\xca\xcb]"  # far CALL, JMP and RET
    rb"|\xff[\x18-\x1f\x28-\x2f\x58-\x5f\x68-\x6f\x98-\x9f\xa8-\xaf]"  # the same through memory
    rb"|\x8e[\x10-\x17\x50-\x57\x90-\x97\xd0-\xd7]"  # MOV to SS
    rb"|\x0f[\x00-\x03\x07\x21-\x23\x30-\x32\x35]"  # LLDT, LTR, LGDT, LIDT, LAR, LSL, SYSRET, MOV CRn, MSRs, SYSEXIT
    rb"|\x0f\xa2|[\x44-\x47\x4c-\x4f]\x0f\x20"  # CPUID, MOV from CR8
    rb"|\x0f\xae[\xd0-\xdf]"  # WRFSBASE, WRGSBASE
    rb"|[\xc0\xc1\xd0-\xd3][\x10-\x1f\x50-\x5f\x90-\x9f]",  # RCL and RCR of memory
    re.DOTALL,
)
IRET = b"\xcf"
FAR_TRANSFERS = frozenset({cs.X86_INS_LCALL, cs.X86_INS_LJMP, cs.X86_INS_RETF, cs.X86_INS_RETFQ})
_SEGMENT_SYSTEM_LOADS = frozenset({cs.X86_INS_LLDT, cs.X86_INS_LTR})
SYSTEM_LOADS = _SEGMENT_SYSTEM_LOADS | {cs.X86_INS_LGDT, cs.X86_INS_LIDT}
FAST_RETURNS = frozenset({cs.X86_INS_SYSRET, cs.X86_INS_SYSRETQ, cs.X86_INS_SYSEXIT, cs.X86_INS_SYSEXITQ})
IRETS = frozenset({cs.X86_INS_IRET, cs.X86_INS_IRETD, cs.X86_INS_IRETQ})
BASE_LOADS = frozenset({cs.X86_INS_WRFSBASE, cs.X86_INS_WRGSBASE})
DESCRIPTOR_QUERIES = frozenset({cs.X86_INS_LAR, cs.X86_INS_LSL})
TIME_STAMPS = frozenset({cs.X86_INS_RDTSC, cs.X86_INS_RDTSCP})
MODEL = frozenset({cs.X86_INS_CPUID, cs.X86_INS_RDMSR, cs.X86_INS_WRMSR})
CARRY_ROTATES = frozenset({cs.X86_INS_RCL, cs.X86_INS_RCR})
_ALWAYS = FAR_TRANSFERS | SYSTEM_LOADS | FAST_RETURNS | BASE_LOADS | DESCRIPTOR_QUERIES | TIME_STAMPS | MODEL
_CONTROL = range(cs.X86_REG_CR0, cs.X86_REG_CR15 + 1)
_DEBUG = range(cs.X86_REG_DR0, cs.X86_REG_DR15 + 1)


@dataclass(slots=True)
class Lookout:
    """What has been found so far; addresses are linear."""

    planted: list[int] = field(default_factory=list)
    """Where hooks are, in order; those that have stepped aside are among them."""
    astray: list[int] = field(default_factory=list)
    """Hooks that translations of other instructions call."""
    aside: list[int] = field(default_factory=list)
    """Hooks that aren't there until the next block has been translated."""
    stale: list[tuple[int, int]] = field(default_factory=list)
    """Blocks, by address and size in bytes, whose translations don't call the hooks that they should, or others."""
    sees_returns: bool = False
    """Whether each IRET is looked at: hardware task switches have happened."""

    def look(self, processor: Processor, address: int, size: int) -> bool:
        """See a block that has been translated; True if it must not run as it is."""
        not_called = self.put_back(processor) if self.aside else []
        code = processor.engine.code_at(address, size) or processor.peek_some(address, size)
        if code[-1:] == IRET:
            processor.engine.note_return(address)
        here = self.planted[bisect_left(self.planted, address) : bisect_left(self.planted, address + size)]
        returns, program = self.watches_returns(processor), processor.cpl == 3
        others = [place for place in here if _is_another(processor, place, returns, program)]
        found = []
        if _CANDIDATES.search(code) is not None or (returns and code[-1:] == IRET):
            offsets = watched(code, processor.decoder_mode, returns=returns, program=program)
            places = [address + offset for offset in offsets]
            new = [place for place in places if place not in here or place in not_called]
            # What the end of the block cuts off may be another instruction than it seems to be.
            found = [place for place in new if not _is_another(processor, place, returns, program)]
        for place in found:
            if place not in here:
                insort(self.planted, place)
                processor.engine.watch(place)
        if not found and all(place in not_called for place in others):
            return False
        self.astray += others  # all of them at once: if they took turns, it would have no end
        self.stale.append((address, size))
        return True

    def forget(self, processor: Processor) -> None:
        """Take all hooks out, between two runs: all translations are about to be forgotten."""
        for place in self.planted:
            if place not in self.aside:
                processor.engine.unwatch(place)
        for places in (self.planted, self.astray, self.aside, self.stale):
            places.clear()

    def step_aside(self, processor: Processor) -> None:
        """Take out, between two runs, the hooks that the block to be translated anew is not to call."""
        self.aside = sorted(set(self.astray))
        self.astray.clear()
        for place in self.aside:
            processor.engine.unwatch(place)

    def put_back(self, processor: Processor) -> list[int]:
        """... and plant them again; returns their addresses."""
        for place in self.aside:
            processor.engine.watch(place)
        places, self.aside = self.aside, []
        return places

    def watches_returns(self, processor: Processor) -> bool:
        """Whether an IRET may be one that the engine gets wrong: of a program, or back from a nested task."""
        return self.sees_returns or processor.cpl == 3


def _is_another(processor: Processor, place: int, returns: bool, program: bool) -> bool:
    """Whether what begins at this linear address is nothing to be looked at, as an IRET is without ``returns``."""
    code = processor.engine.code_at(place, MAX_LENGTH) or processor.peek_some(place, MAX_LENGTH)
    return not begins_watched(code, processor.decoder_mode, returns=returns, program=program)


@lru_cache(maxsize=KNOWN)
def watched(code: bytes, mode: int, *, returns: bool, program: bool = False) -> tuple[int, ...]:
    """Where in a block the instructions are that are to be looked at; with ``returns``, IRETs, too, and without LTR and
    LLDT in a ``program``: at ring 3 they do nothing but fault, as the engine has them do.

    Behind an instruction that only the engine knows, all bytes are taken for the first one of an instruction: a hook
    where none begins isn't noticed.
    """
    found, end = [], 0
    for instruction in decoder(mode).disasm(code, 0):
        end = instruction.address + instruction.size
        if _is_watched(instruction, mode, program) or (returns and instruction.id in IRETS):
            found.append(instruction.address)
    for at in range(end, len(code)):
        if begins_watched(code[at : at + MAX_LENGTH], mode, returns=returns, program=program):
            found.append(at)
    return tuple(found)


@lru_cache(maxsize=KNOWN)
def begins_watched(code: bytes, mode: int, *, returns: bool = True, program: bool = False) -> bool:
    """Whether the first instruction of this code is one to be looked at, by what `watched` says."""
    decoded = first_instruction(code, mode)
    if decoded is None:
        return is_refused(code)
    return (returns and decoded.id in IRETS) or _is_watched(decoded, mode, program)


def _is_watched(instruction: capstone.CsInsn, mode: int, program: bool) -> bool:
    wide = mode == capstone.CS_MODE_64
    code = bytes(instruction.bytes)
    if has_forbidden_lock(code, wide=wide):
        return True
    if program and instruction.id in _SEGMENT_SYSTEM_LOADS:
        return False
    # Capstone takes a far CALL or JMP through memory for a near one.
    if instruction.id in _ALWAYS or far_kind(code, wide=wide) is not None:
        return True
    if instruction.id in CARRY_ROTATES:
        return bool(instruction.operands[0].type == cs.X86_OP_MEM)
    if instruction.id == cs.X86_INS_PUSHFD:
        return bool(mode == capstone.CS_MODE_16)
    if instruction.id == cs.X86_INS_MOV:
        target, source = (operand.reg if operand.type == cs.X86_OP_REG else 0 for operand in instruction.operands)
        special = target == cs.X86_REG_SS or target in _CONTROL or target in _DEBUG
        return special or source in _DEBUG or source == cs.X86_REG_CR8
    return False
