"""Operands of decoded guest instructions: reading, writing and addressing them on the virtual processor."""

from __future__ import annotations

import capstone
from capstone import x86_const as cs

from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.segments import SegmentRegister

_GENERAL: dict[int, tuple[int, int, int]] = {}
"""Capstone register -> (machine encoding, size in bytes, shift in bits)."""
for _index, _names in enumerate(
    (
        ("EAX", "AX", "AL"), ("ECX", "CX", "CL"), ("EDX", "DX", "DL"), ("EBX", "BX", "BL"),
        ("ESP", "SP", None), ("EBP", "BP", None), ("ESI", "SI", None), ("EDI", "DI", None),
    )
):  # fmt: skip
    for _name, _size in zip(_names, (4, 2, 1), strict=True):
        if _name is not None:
            _GENERAL[getattr(cs, f"X86_REG_{_name}")] = (_index, _size, 0)
for _index, _name in enumerate(("AH", "CH", "DH", "BH")):
    _GENERAL[getattr(cs, f"X86_REG_{_name}")] = (_index, 1, 8)

SEGMENTS = {getattr(cs, f"X86_REG_{register.name}"): register for register in SegmentRegister}
_STACK_BASES = frozenset({cs.X86_REG_ESP, cs.X86_REG_EBP, cs.X86_REG_BP, cs.X86_REG_SP})


class Operands:
    """The operands of one instruction of a guest."""

    def __init__(self, cpu: VirtualCpu, instruction: capstone.CsInsn) -> None:
        self._cpu = cpu
        self.instruction = instruction
        self._operands = instruction.operands

    def __len__(self) -> int:
        return len(self._operands)

    def size(self, index: int) -> int:
        """Size of an operand in bytes."""
        return int(self._operands[index].size)

    def register(self, index: int) -> int:
        """Capstone's number of a register operand, 0 if it isn't one."""
        operand = self._operands[index]
        return int(operand.reg) if operand.type == cs.X86_OP_REG else 0

    def is_memory(self, index: int) -> bool:
        return bool(self._operands[index].type == cs.X86_OP_MEM)

    def address(self, index: int) -> int:
        """The GVA that a memory operand refers to."""
        memory = self._operands[index].mem
        mask = 0xFFFF if self.instruction.addr_size == 2 else 0xFFFF_FFFF
        offset: int = memory.disp + self._plain(memory.base) + self._plain(memory.index) * memory.scale & mask
        return self._cpu.segment_base(self.segment(index)) + offset & 0xFFFF_FFFF

    def segment(self, index: int) -> SegmentRegister:
        """The segment register that a memory operand is read or written through."""
        memory = self._operands[index].mem
        if memory.segment:
            return SEGMENTS[int(memory.segment)]
        return SegmentRegister.SS if memory.base in _STACK_BASES else SegmentRegister.DS

    def _plain(self, register: int) -> int:
        return self.read_register(register) if register else 0

    def read_register(self, register: int) -> int:
        index, size, shift = _GENERAL[register]
        return self._cpu.gpr(index) >> shift & ((1 << 8 * size) - 1)

    def write_register(self, register: int, value: int) -> None:
        index, size, shift = _GENERAL[register]
        mask = ((1 << 8 * size) - 1) << shift
        self._cpu.set_gpr(index, self._cpu.gpr(index) & ~mask | value << shift & mask)

    def read(self, index: int, size: int | None = None) -> int:
        """The value of an operand; ``size`` bytes of it where memory is meant."""
        operand = self._operands[index]
        if operand.type == cs.X86_OP_IMM:
            return int(operand.imm) & 0xFFFF_FFFF
        if operand.type == cs.X86_OP_REG:
            if operand.reg in SEGMENTS:
                return self.selector(SEGMENTS[operand.reg])
            return self.read_register(operand.reg)
        return self._cpu.read(self.address(index), size or operand.size, user=self._cpu.cpl == 3)

    def write(self, index: int, value: int, memory_size: int | None = None) -> None:
        """Write an operand. A store to memory has ``memory_size`` bytes, or the operand's own size."""
        operand = self._operands[index]
        if operand.type == cs.X86_OP_REG:
            self.write_register(operand.reg, value)
        else:
            size = memory_size or operand.size
            self._cpu.write(self.address(index), size, value & ((1 << 8 * size) - 1), user=self._cpu.cpl == 3)

    def selector(self, register: SegmentRegister) -> int:
        """A segment register's selector as the guest is to see it."""
        if register is SegmentRegister.CS:
            return self._cpu.code.selector
        if register is SegmentRegister.SS:
            return self._cpu.stack.selector
        return self._cpu.data_selector(register)
