"""What the manual asks of an instruction and the engine doesn't: checked before it is executed.

Each guard gets the processor before the instruction and raises `Raised` for its fault, or returns and lets it run. The
engine's own checks come first in most cases: CPL, for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capstone import x86_const as cs

from hvproto.processor.engine import UnmappedAccess
from hvproto.processor.exceptions import DEBUG_VECTOR, Raised, descriptor_place, load_descriptor
from hvproto.processor.instruction import Instruction
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.lookout import CARRY_ROTATES, SYSTEM_LOADS
from hvproto.processor.opcodes import has_forbidden_lock
from hvproto.processor.paging import PAE, PHYSICAL_BITS, P, format_of
from hvproto.processor.segments import (
    RPL_MASK,
    SYSTEM_LDT,
    TABLE_INDICATOR,
    TSS32_AVAILABLE,
    Segment,
    decode_descriptor,
)
from hvproto.processor.settings import (
    CANONICAL_MSRS,
    CR0_CD,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR4_DEFINED,
    CR4_PAE,
    DR6_BD,
    DR7_GD,
    EFER_DEFINED,
    EFER_LMA,
    EFER_LME,
    EFER_MSR,
    EFLAGS_VM,
    Setting,
)

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu

INVALID, STACK, PROTECTION = 6, 12, 13
RAX, RCX, RDX = 0, 1, 2
HIGH_HALF = 0xFFFF_FFFF_0000_0000
PRIVILEGED = SYSTEM_LOADS | {cs.X86_INS_RDMSR, cs.X86_INS_WRMSR}
_CONTROL = {getattr(cs, f"X86_REG_CR{n}"): n for n in (0, 3, 4, 8)}
_DEBUG = {getattr(cs, f"X86_REG_DR{n}"): n for n in range(8)}
_RESERVED_IN_MSR = {0x1B: (1 << 64) - (1 << 36) | 0x6FF, 0xFE: (1 << 64) - 1}
"""IA32_APIC_BASE without x2APIC, its address below 2^36 (SDM vol. 3, 10.4.4); IA32_MTRRCAP, read only (11.11.1)."""
_PDPTE_RESERVED = (1 << 64) - (1 << PHYSICAL_BITS) | 0x1E6
"""SDM vol. 3, table 4-8: bits 1 and 2, 5 to 8, and those above the physical address."""


def check(processor: Cpu, instruction: Instruction) -> None:
    """Raises `Raised` if the instruction faults, other than by its memory operand (but for that of RCL and RCR)."""
    if has_forbidden_lock(instruction.code, wide=processor.code64):
        raise Raised(INVALID)
    if instruction.id in CARRY_ROTATES:
        _rotate(instruction)
    elif instruction.id == cs.X86_INS_MOV:
        _move(processor, instruction)
    elif instruction.id in (cs.X86_INS_WRFSBASE, cs.X86_INS_WRGSBASE):
        if instruction.operand_size == 8 and not is_canonical(instruction.read(instruction.operands[0], 8) or 0):
            raise Raised(PROTECTION, 0)
    elif instruction.id not in PRIVILEGED:
        return
    elif instruction.id in (cs.X86_INS_LTR, cs.X86_INS_LLDT) and not _knows_descriptors(processor):
        raise Raised(INVALID)
    elif processor.cpl != 0:
        raise Raised(PROTECTION, 0)
    elif instruction.id == cs.X86_INS_WRMSR:
        _write_msr(processor)
    elif instruction.id in (cs.X86_INS_LTR, cs.X86_INS_LLDT):
        _load_system_segment(processor, instruction)
    elif instruction.id in (cs.X86_INS_LGDT, cs.X86_INS_LIDT):
        _load_table_register(processor, instruction)


def _rotate(instruction: Instruction) -> None:
    """RCL and RCR: the engine loses the carry, and all flags with it, if the operand faults."""
    operand = instruction.operands[0]
    try:
        instruction.check_writable(operand, operand.size)
    except UnmappedAccess:
        return  # no RAM, which is no fault


def _move(processor: Cpu, instruction: Instruction) -> None:
    target, source = instruction.operands[0], instruction.operands[1]
    privileged = target.type == cs.X86_OP_REG and target.reg != cs.X86_REG_SS
    if privileged and processor.cpl != 0:
        raise Raised(PROTECTION, 0)
    if target.reg in _CONTROL and processor.cpl == 0:
        _write_control(processor, _CONTROL[target.reg], processor.register(instruction.name_of(source.reg)))
    elif target.type == cs.X86_OP_REG and target.reg == cs.X86_REG_SS:
        _load_stack(processor, instruction)
    elif source.type == cs.X86_OP_REG and source.reg in _CONTROL:
        return
    elif processor.cpl == 0 and processor.debug_register(7) & DR7_GD:
        processor.set_debug_register(6, processor.debug_register(6) | DR6_BD)
        raise Raised(DEBUG_VECTOR)
    elif target.reg in _DEBUG and processor.cpl == 0:
        value = processor.register(instruction.name_of(source.reg))
        if _DEBUG[target.reg] >= 4 and value & HIGH_HALF:
            raise Raised(PROTECTION, 0)
        processor.debug_registers_change()


def _knows_descriptors(processor: Cpu) -> bool:
    """Whether this is protected mode proper: LLDT and LTR are invalid elsewhere (SDM vol. 2, LLDT)."""
    return bool(processor.control(Setting.CR0) & CR0_PE) and not processor.eflags & EFLAGS_VM


def _write_control(processor: Cpu, number: int, value: int) -> None:
    if number == 3 and not processor.control(Setting.CR4) & CR4_PAE:
        return  # also of long mode, which needs it: the most frequent of all
    cr0, cr4 = processor.control(Setting.CR0), processor.control(Setting.CR4)
    efer = processor.control(Setting.EFER)
    if number == 0:
        wrong = bool(value & HIGH_HALF) or (value & CR0_PG and not value & CR0_PE)
        wrong = wrong or (value & CR0_NW and not value & CR0_CD)
        wrong = wrong or (processor.code64 and not value & CR0_PG)
        entering = value & CR0_PG and not cr0 & CR0_PG and efer & EFER_LME
        wrong = wrong or (entering and not cr4 & CR4_PAE)
        if wrong:
            raise Raised(PROTECTION, 0)
        if value & CR0_PG and not cr0 & CR0_PG and not entering and cr4 & CR4_PAE:
            _check_pdptes(processor, processor.control(Setting.CR3))
    elif number == 3:
        if efer & EFER_LMA and value & ~(1 << 63) >> PHYSICAL_BITS << PHYSICAL_BITS:
            raise Raised(PROTECTION, 0)
        if efer & EFER_LMA and value >> 63:
            raise Raised(PROTECTION, 0)  # without CR4.PCIDE
        if format_of(cr0, cr4, efer) is PAE:
            _check_pdptes(processor, value)
    elif number == 4:
        if value & ~CR4_DEFINED or (efer & EFER_LMA and not value & CR4_PAE):
            raise Raised(PROTECTION, 0)
        if cr0 & CR0_PG and value & CR4_PAE and not cr4 & CR4_PAE:
            _check_pdptes(processor, processor.control(Setting.CR3))
    elif value > 0xF:
        raise Raised(PROTECTION, 0)


def _check_pdptes(processor: Cpu, cr3: int) -> None:
    """The four PDPTEs are checked as CR3 is loaded (SDM vol. 3, 4.4.1)."""
    for index in range(4):
        entry = processor.read_physical((cr3 & PAE.root_mask) + 8 * index, 8)
        if entry is not None and entry & P and entry & _PDPTE_RESERVED:
            raise Raised(PROTECTION, 0)


def _load_stack(processor: Cpu, instruction: Instruction) -> None:
    """Null is for rings 0 to 2 of 64-bit code only, with the ring as its RPL (SDM vol. 2, MOV)."""
    target = processor.target()
    selector = instruction.read(instruction.operands[1], 2)
    if selector is None or not target.protected or target.eflags & EFLAGS_VM:
        return
    if selector & ~RPL_MASK == 0:
        if not processor.code64 or target.cpl == 3 or selector & RPL_MASK != target.cpl:
            raise Raised(PROTECTION, 0)
        return
    stack = load_descriptor(target, selector)
    if stack.rpl != target.cpl or stack.dpl != target.cpl or not stack.is_writable_data:
        raise Raised(PROTECTION, selector & ~RPL_MASK)
    if not stack.present:
        raise Raised(STACK, selector & ~RPL_MASK)


def _write_msr(processor: Cpu) -> None:
    number = processor.gpr(RCX) & 0xFFFF_FFFF
    value = (processor.gpr(RDX) & 0xFFFF_FFFF) << 32 | processor.gpr(RAX) & 0xFFFF_FFFF
    if number == EFER_MSR:
        changes_mode = (value ^ processor.control(Setting.EFER)) & EFER_LME
        if value & ~EFER_DEFINED or (changes_mode and processor.control(Setting.CR0) & CR0_PG):
            raise Raised(PROTECTION, 0)
    elif (number in CANONICAL_MSRS and not is_canonical(value)) or value & _RESERVED_IN_MSR.get(number, 0):
        raise Raised(PROTECTION, 0)


def _load_system_segment(processor: Cpu, instruction: Instruction) -> None:
    selector = instruction.read(instruction.operands[0], 2)
    if selector is None:
        return
    is_task = instruction.id == cs.X86_INS_LTR
    if not selector & ~RPL_MASK:
        if is_task:
            raise Raised(PROTECTION, 0)
        return
    if selector & TABLE_INDICATOR or not processor.long_mode:
        return
    target = processor.target()
    error = selector & ~RPL_MASK
    if error + 15 > target.gdtr.limit:
        raise Raised(PROTECTION, error)
    place = descriptor_place(target, selector)
    low, high = target.read(place, 8), target.read(place + 8, 8)
    segment = decode_descriptor(selector, low)
    wrong = _wrong_type(segment, is_task) or bool(high >> 32 & 0x1F00)
    if wrong or (segment.present and not is_canonical(segment.base | (high & 0xFFFF_FFFF) << 32)):
        raise Raised(PROTECTION, error)


def _wrong_type(segment: Segment, is_task: bool) -> bool:
    """In long mode only the 32-bit type, which is the 64-bit one there."""
    return not segment.is_system or segment.system_type != (TSS32_AVAILABLE if is_task else SYSTEM_LDT)


def _load_table_register(processor: Cpu, instruction: Instruction) -> None:
    if not processor.code64:
        return
    memory = instruction.operands[0].mem
    raw = processor.peek(processor.wrapped(instruction.linear_address(memory) + 2), 8)
    if raw is not None and not is_canonical(int.from_bytes(raw, "little")):
        raise Raised(PROTECTION, 0)
