"""The instruction at CS:EIP, decoded: what a look at it needs to know. Capstone does the work."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import capstone
from capstone import x86_const as cs

from hvproto.processor.exceptions import Raised
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.opcodes import MAX_LENGTH
from hvproto.processor.segments import SegmentRegister

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu

STACK_FAULT, PROTECTION = 12, 13
KNOWN = 1024
"""So many instructions are kept decoded."""
LINEAR_32, LINEAR_64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_SEGMENTS = {getattr(cs, f"X86_REG_{register.name}"): register for register in SegmentRegister}
_STACK_REGISTERS = frozenset(getattr(cs, f"X86_REG_{name}") for name in ("RSP", "RBP", "ESP", "EBP", "SP", "BP"))
_SSE_GROUPS = frozenset(
    getattr(cs, f"X86_GRP_{name}")
    for name in ("SSE1", "SSE2", "SSE3", "SSSE3", "SSE41", "SSE42", "SSE4A", "AES", "PCLMUL")
)


class Instruction:
    """One decoded instruction of a processor that stands before it."""

    def __init__(self, processor: Cpu, decoded: capstone.CsInsn, code: bytes = b"") -> None:
        """``code`` are bytes that begin with the instruction's: whoever has them saves the decoder telling."""
        self._processor = processor
        self.decoded = decoded
        self.id: int = decoded.id
        self.size: int = decoded.size
        self.operands: list[capstone.x86.X86Op] = decoded.operands
        """Not to be changed: others of the same bytes share them."""
        self.code = code[: self.size] or bytes(decoded.bytes)

    def loads(self, register: int) -> bool:
        """Whether its first operand is this register, by Capstone's number."""
        return bool(self.operands) and self.operands[0].type == cs.X86_OP_REG and self.operands[0].reg == register

    def name_of(self, register: int) -> str:
        return str(self.decoded.reg_name(register))

    def read(self, operand: capstone.x86.X86Op, size: int) -> int | None:
        """The value of any operand, without any effect; None where there is no memory. ``size`` in bytes."""
        if operand.type != cs.X86_OP_MEM:
            return self._at_hand(operand) & (1 << 8 * size) - 1
        raw = self._processor.peek(self.linear_address(operand.mem), size)
        return None if raw is None else int.from_bytes(raw, "little")

    def load(self, operand: capstone.x86.X86Op, size: int) -> int:
        """The value of any operand, read as the instruction does: with the rights of CPL. Raises `Raised`.

        As with the engine, paging and canonical addresses are all that is checked: no limits, no segment's rights.
        """
        if operand.type != cs.X86_OP_MEM:
            return self._at_hand(operand) & (1 << 8 * size) - 1
        return self._processor.read(self._canonical(operand.mem, size), size, user=self._processor.cpl == 3)

    def write(self, operand: capstone.x86.X86Op, size: int, value: int) -> None:
        """Write a general register or a memory operand, with the rights of CPL. Raises `Raised`, nothing written then.

        A register of 32 bits clears the upper half of its own, as in 64-bit code; one of 8 or 16 leaves the rest.
        """
        value &= (1 << 8 * size) - 1
        if operand.type == cs.X86_OP_REG:
            self._processor.set_register(self.name_of(operand.reg), value)
            return
        linear = self._canonical(operand.mem, size)
        self._processor.write(linear, size, value, user=self._processor.cpl == 3)

    def check_writable(self, operand: capstone.x86.X86Op, size: int) -> None:
        """Raises what a `write` to a memory operand would; A and D bits are set as by it, and nothing is written."""
        linear = self._canonical(operand.mem, size)
        self._processor.check_writable(linear, size, user=self._processor.cpl == 3)

    def _at_hand(self, operand: capstone.x86.X86Op) -> int:
        if operand.type == cs.X86_OP_IMM:
            return int(operand.imm)
        if operand.reg in _SEGMENTS:
            return self._processor.segment(_SEGMENTS[operand.reg]).selector
        return self._processor.register(self.name_of(operand.reg))

    def _canonical(self, memory: capstone.x86.X86OpMem, size: int) -> int:
        linear = self.linear_address(memory)
        if self._processor.code64 and not (is_canonical(linear) and is_canonical(linear + size - 1 & LINEAR_64)):
            raise Raised(STACK_FAULT if self.through_stack_segment(memory) else PROTECTION, 0)
        return linear

    @property
    def operand_size(self) -> int:
        """2, 4 or 8 bytes, for an instruction whose default isn't 8 in 64-bit code."""
        if self.decoded.rex & 8:
            return 8
        wide = self._processor.code64 or self._processor.code.is_32bit
        return 2 if (self.decoded.prefix[2] == 0x66) == wide else 4

    @property
    def mnemonic(self) -> str:
        return str(self.decoded.mnemonic)

    @property
    def address_size(self) -> int:
        """2, 4 or 8 bytes."""
        return int(self.decoded.addr_size)

    @property
    def first_prefix(self) -> int:
        """LOCK, REP or REPNE, by its byte; 0 without one."""
        return int(self.decoded.prefix[0])

    @property
    def is_sse(self) -> bool:
        return not _SSE_GROUPS.isdisjoint(self.decoded.groups) and not self.is_mmx

    @property
    def is_mmx(self) -> bool:
        """Whether it works on MMX registers, or is EMMS; also those that came with SSE."""
        named = (operand.reg for operand in self.operands if operand.type == cs.X86_OP_REG)
        return self.id == cs.X86_INS_EMMS or any(cs.X86_REG_MM0 <= register <= cs.X86_REG_MM7 for register in named)

    def memory_operand(self) -> capstone.x86.X86Op | None:
        return next((operand for operand in self.operands if operand.type == cs.X86_OP_MEM), None)

    def through_stack_segment(self, memory: capstone.x86.X86OpMem) -> bool:
        """Whether SS is the segment of a memory operand (SDM vol. 1, table 3-5); in 64-bit code: would be."""
        if memory.segment and not self._processor.code64:
            return bool(memory.segment == cs.X86_REG_SS)
        return memory.base in _STACK_REGISTERS

    def linear_address(self, memory: capstone.x86.X86OpMem) -> int:
        """Where a memory operand lies."""
        processor = self._processor
        address: int = self._value(memory.base) + self._value(memory.index) * memory.scale + memory.disp
        address &= (1 << 8 * self.decoded.addr_size) - 1
        if processor.code64:
            based = memory.segment in (cs.X86_REG_FS, cs.X86_REG_GS)
            base = processor.segment(_SEGMENTS[memory.segment]).base if based else 0
            return base + address & LINEAR_64
        register = _SEGMENTS.get(memory.segment)
        if register is None:
            register = SegmentRegister.SS if memory.base in _STACK_REGISTERS else SegmentRegister.DS
        return processor.segment(register).base + address & LINEAR_32

    def _value(self, register: int) -> int:
        if register in (0, cs.X86_REG_RIZ, cs.X86_REG_EIZ):
            return 0
        if register in (cs.X86_REG_RIP, cs.X86_REG_EIP):
            return self._processor.eip + self.size
        return self._processor.register(self.decoded.reg_name(register))


def instruction_at(processor: Cpu, eip: int | None = None) -> Instruction | None:
    """The instruction at EIP, or at another offset into the code segment; None where there is none."""
    eip = processor.eip if eip is None else eip
    code = processor.peek_some(processor.wrapped(processor.code.base + eip), MAX_LENGTH)
    decoded = first_instruction(code, processor.decoder_mode)
    return None if decoded is None else Instruction(processor, decoded, code)


@lru_cache(maxsize=KNOWN)
def first_instruction(code: bytes, mode: int) -> capstone.CsInsn | None:
    """What these bytes begin with, as if they were at address 0; None where that is no instruction.

    Decoding one takes 20 us, and a kernel meets the same few at each of its context switches.
    """
    return next(decoder(mode).disasm(code, 0, 1), None)


@cache
def decoder(mode: int) -> capstone.Cs:
    """A decoder of code of 16, 32 or 64 bits, by Capstone's constant; with all details."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
    decoder.detail = True
    return decoder
