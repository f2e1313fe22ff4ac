"""System instructions of a deprivileged guest: control and debug registers, tables, MSRs, what asks of descriptors."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from capstone import x86_const as cs

from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised, descriptor_place, load_descriptor
from hvproto.processor.instruction import Instruction
from hvproto.processor.segments import (
    NULL_SEGMENT,
    RPL_MASK,
    SYSTEM_LDT,
    TABLE_INDICATOR,
    TSS16_AVAILABLE,
    TSS32_AVAILABLE,
    TSS_BUSY_BIT,
    TYPE_SHIFT,
    Segment,
    SegmentRegister,
    TableRegister,
)
from hvproto.processor.settings import (
    BASE_MSRS,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_DE,
    CR4_PCE,
    DR6_ONES,
    DR6_ZEROS,
    DR7_ONES,
    DR7_ZEROS,
    EFLAGS_VM,
    EFLAGS_ZF,
    Setting,
)

INVALID_OPCODE, NOT_PRESENT, PROTECTION = 6, 11, 13
RAX, RCX, RDX = 0, 1, 2
CR0_DEFINED = 0xE005_003F
KERNEL_GS_BASE = BASE_MSRS[2]
_TABLES = {cs.X86_INS_LGDT: Setting.GDTR, cs.X86_INS_LIDT: Setting.IDTR}
_STORED_TABLES = {cs.X86_INS_SGDT: Setting.GDTR, cs.X86_INS_SIDT: Setting.IDTR}
_STORED_SELECTORS = {cs.X86_INS_SLDT: Setting.LDTR, cs.X86_INS_STR: Setting.TR}
_CONTROL = {getattr(cs, f"X86_REG_CR{n}"): n for n in range(16)}
_DEBUG = {getattr(cs, f"X86_REG_DR{n}"): n for n in range(16)}
_KINDS_OF_LAR = frozenset({1, 2, 3, 4, 5, 9, 11, 12})
_KINDS_OF_LSL = frozenset({1, 2, 3, 9, 11})
_KINDS_OF_LONG_MODE = frozenset({2, 9, 11, 12})
_QUERIES = frozenset({cs.X86_INS_LAR, cs.X86_INS_LSL, cs.X86_INS_VERR, cs.X86_INS_VERW})
_NOTHING = frozenset({cs.X86_INS_WBINVD, cs.X86_INS_WBNOINVD, cs.X86_INS_INVD})


class Environment(Protocol):
    """What else there is around the virtual processor."""

    def halt(self) -> None:
        """HLT was executed."""

    def invalidate(self, linear: int) -> None:
        """INVLPG of a GVA was executed."""


def execute(cpu: VirtualCpu, instruction: Instruction, environment: Environment) -> bool:
    """Do one instruction but for moving EIP; False if it is none of these. Raises `Raised`, with nothing changed."""
    number = instruction.id
    if number in _TABLES:
        _load_table(cpu, instruction)
    elif number in _STORED_TABLES:
        _store_table(cpu, instruction)
    elif number in (cs.X86_INS_LLDT, cs.X86_INS_LTR):
        _load_system_segment(cpu, instruction)
    elif number in _STORED_SELECTORS:
        _only_protected(cpu)
        selector = _system_segment(cpu, _STORED_SELECTORS[number]).selector
        _store_word(cpu, instruction, selector)
    elif number == cs.X86_INS_SMSW:
        _store_word(cpu, instruction, cpu.control(Setting.CR0) & 0xFFFF)
    elif number == cs.X86_INS_LMSW:
        _privileged(cpu)
        value = instruction.load(instruction.operands[0], 2)
        cr0 = cpu.control(Setting.CR0)
        _set_cr0(cpu, cr0 & ~0xE | value & 0xF | cr0 & CR0_PE)
    elif number == cs.X86_INS_CLTS:
        _privileged(cpu)
        cpu.write_setting(Setting.CR0, cpu.control(Setting.CR0) & ~CR0_TS)
    elif number == cs.X86_INS_INVLPG:
        _privileged(cpu)
        environment.invalidate(instruction.linear_address(instruction.operands[0].mem))
    elif number in _NOTHING:
        _privileged(cpu)
    elif number == cs.X86_INS_RDMSR:
        _privileged(cpu)
        _set_pair(cpu, cpu.msr(cpu.gpr(RCX) & 0xFFFF_FFFF))
    elif number == cs.X86_INS_WRMSR:
        value = (cpu.gpr(RDX) & 0xFFFF_FFFF) << 32 | cpu.gpr(RAX) & 0xFFFF_FFFF
        cpu.set_msr(cpu.gpr(RCX) & 0xFFFF_FFFF, value)
    elif number == cs.X86_INS_SWAPGS:
        _swap_gs(cpu)
    elif number == cs.X86_INS_RDPMC:
        _privileged(cpu) if not cpu.control(Setting.CR4) & CR4_PCE else None
        _set_pair(cpu, 0)
    elif number in _QUERIES:
        _only_protected(cpu)
        _query(cpu, instruction)
    else:
        return False
    return True


def _privileged(cpu: VirtualCpu) -> None:
    if cpu.cpl:
        raise Raised(PROTECTION, 0)


def _only_protected(cpu: VirtualCpu) -> None:
    if not cpu.is_protected or cpu.eflags & EFLAGS_VM:
        raise Raised(INVALID_OPCODE)


def _set_pair(cpu: VirtualCpu, value: int) -> None:
    cpu.set_gpr(RAX, value & 0xFFFF_FFFF)
    cpu.set_gpr(RDX, value >> 32 & 0xFFFF_FFFF)


def _store_word(cpu: VirtualCpu, instruction: Instruction, value: int) -> None:
    """A register gets the whole value (the upper half of SMSW's is undefined), memory 16 bits."""
    operand = instruction.operands[0]
    if operand.type == cs.X86_OP_MEM:
        instruction.write(operand, 2, value)
    elif instruction.id == cs.X86_INS_SMSW and operand.size >= 4:
        # Of the upper half nothing is defined; the engine leaves it alone.
        kept = cpu.register(instruction.name_of(operand.reg)) & ~0xFFFF
        instruction.write(operand, operand.size, kept | value)
    else:
        instruction.write(operand, operand.size, value)


# -- tables ----------------------------------------------------------------------------------


def _load_table(cpu: VirtualCpu, instruction: Instruction) -> None:
    address = instruction.linear_address(instruction.operands[0].mem)
    limit = cpu.read(address, 2)
    base = cpu.read(cpu.wrapped(address + 2), 8 if cpu.code64 else 4)
    if not cpu.code64 and instruction.operand_size == 2:
        base &= 0xFF_FFFF
    cpu.write_setting(_TABLES[instruction.id], TableRegister(base, limit))


def _store_table(cpu: VirtualCpu, instruction: Instruction) -> None:
    table = cpu.read_setting(_STORED_TABLES[instruction.id])
    assert isinstance(table, TableRegister)
    address = instruction.linear_address(instruction.operands[0].mem)
    size = 10 if cpu.code64 else 6
    cpu.write(address, size, table.limit & 0xFFFF | table.base << 16 & (1 << 8 * size) - 1, user=cpu.cpl == 3)


def _system_segment(cpu: VirtualCpu, setting: Setting) -> Segment:
    value = cpu.read_setting(setting)
    assert isinstance(value, Segment)
    return value


def _load_system_segment(cpu: VirtualCpu, instruction: Instruction) -> None:
    """LLDT and LTR; in long mode their descriptors have 16 bytes, of which the guard has checked the second half."""
    load_system_segment(cpu, instruction.load(instruction.operands[0], 2) & 0xFFFF, instruction.id == cs.X86_INS_LTR)


def load_system_segment(cpu: VirtualCpu, selector: int, is_task: bool) -> None:
    """... by the selector. Raises `Raised`, with nothing changed."""
    setting = Setting.TR if is_task else Setting.LDTR
    if not selector & ~RPL_MASK:
        cpu.write_setting(setting, NULL_SEGMENT.with_selector(selector))
        return
    error = selector & ~RPL_MASK
    if selector & TABLE_INDICATOR:
        raise Raised(PROTECTION, error)
    target = cpu.target()
    segment = load_descriptor(target, selector)
    kinds = (TSS16_AVAILABLE, TSS32_AVAILABLE) if is_task else (SYSTEM_LDT,)
    if not segment.is_system or segment.system_type not in kinds:
        raise Raised(PROTECTION, error)
    if not segment.present:
        raise Raised(NOT_PRESENT, error)
    place = descriptor_place(target, selector)
    if cpu.long_mode:
        segment = replace(segment, base=segment.base | (target.read(place + 8, 4)) << 32)
    if is_task:
        target.write(cpu.wrapped(place + 5), 1, target.read(cpu.wrapped(place + 5), 1) | TSS_BUSY_BIT)
        segment = replace(segment, attributes=segment.attributes | TSS_BUSY_BIT << TYPE_SHIFT)
    cpu.write_setting(setting, segment)


# -- control and debug registers -------------------------------------------------------------


def move(cpu: VirtualCpu, instruction: Instruction, environment: Environment) -> bool:
    """MOV from and to control and debug registers; False if it is another one. The guard has checked what it must."""
    target, source = instruction.operands
    if target.type != cs.X86_OP_REG or source.type != cs.X86_OP_REG:
        return False
    if source.reg in _CONTROL:
        _privileged(cpu)
        instruction.write(target, target.size, _read_control(cpu, _CONTROL[source.reg]))
    elif target.reg in _CONTROL:
        _privileged(cpu)
        _write_control(cpu, _CONTROL[target.reg], cpu.register(instruction.name_of(source.reg)))
    elif source.reg in _DEBUG:
        _privileged(cpu)
        instruction.write(target, target.size, cpu.debug_register(_debug_number(cpu, _DEBUG[source.reg])))
    elif target.reg in _DEBUG:
        _privileged(cpu)
        number = _debug_number(cpu, _DEBUG[target.reg])
        value = cpu.register(instruction.name_of(source.reg))
        if number == 6:
            value = (value | DR6_ONES) & ~DR6_ZEROS
        elif number == 7:
            value = (value | DR7_ONES) & ~DR7_ZEROS
        cpu.set_debug_register(number, value)
    else:
        return False
    return True


def _read_control(cpu: VirtualCpu, number: int) -> int:
    if number == 2:
        return cpu.cr2
    settings = {0: Setting.CR0, 3: Setting.CR3, 4: Setting.CR4}
    if number not in settings:
        raise Raised(INVALID_OPCODE)
    return cpu.control(settings[number])


def _write_control(cpu: VirtualCpu, number: int, value: int) -> None:
    if number == 0:
        _set_cr0(cpu, value)
    elif number == 2:
        cpu.cr2 = value
    elif number == 3:
        cpu.write_setting(Setting.CR3, value)
    elif number == 4:
        cpu.write_setting(Setting.CR4, value)
    else:
        raise Raised(INVALID_OPCODE)


def _set_cr0(cpu: VirtualCpu, value: int) -> None:
    """With what the guard has left to the processor: PG needs PE, and long mode ends only from 32-bit code."""
    if value & CR0_PG and not value & CR0_PE:
        raise Raised(PROTECTION, 0)
    was_protected = cpu.is_protected
    cpu.write_setting(Setting.CR0, value & CR0_DEFINED)
    if was_protected and not value & CR0_PE:
        # Ring 0 from now on, whatever SS's descriptor said; hidden parts stay until a segment is loaded.
        stack = cpu.stack
        cpu.set_segments({SegmentRegister.SS: stack.with_dpl(0)})


def _debug_number(cpu: VirtualCpu, number: int) -> int:
    """DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE is set (SDM vol. 3, 17.2.2)."""
    if number > 7:
        raise Raised(INVALID_OPCODE)
    if number not in (4, 5):
        return number
    if cpu.control(Setting.CR4) & CR4_DE:
        raise Raised(INVALID_OPCODE)
    return number + 2


def _swap_gs(cpu: VirtualCpu) -> None:
    if not cpu.code64:
        raise Raised(INVALID_OPCODE)
    _privileged(cpu)
    base, other = cpu.segment(SegmentRegister.GS).base, cpu.msr(KERNEL_GS_BASE)
    cpu.set_segments({SegmentRegister.GS: replace(cpu.segment(SegmentRegister.GS), base=other)})
    cpu.set_msr(KERNEL_GS_BASE, base)


# -- what a program may ask of descriptors ---------------------------------------------------


def _query(cpu: VirtualCpu, instruction: Instruction) -> None:
    """LAR, LSL, VERR and VERW (SDM vol. 2): ZF says whether the current level may see the descriptor."""
    number = instruction.id
    operand = instruction.operands[-1]
    segment = _visible(cpu, instruction.load(operand, 2) & 0xFFFF)
    valid = segment is not None
    if segment is not None:
        if number in (cs.X86_INS_VERR, cs.X86_INS_VERW):
            wanted = segment.is_writable_data if number == cs.X86_INS_VERW else segment.is_readable
            valid = not segment.is_system and wanted
        elif segment.is_system:
            kinds = _KINDS_OF_LAR if number == cs.X86_INS_LAR else _KINDS_OF_LSL
            valid = segment.system_type in (kinds & _KINDS_OF_LONG_MODE if cpu.long_mode else kinds)
        if valid and number == cs.X86_INS_LAR:
            instruction.write(instruction.operands[0], instruction.operand_size, segment.attributes & 0x00F0_FF00)
        elif valid and number == cs.X86_INS_LSL:
            instruction.write(instruction.operands[0], instruction.operand_size, segment.limit)
    cpu.eflags = cpu.eflags | EFLAGS_ZF if valid else cpu.eflags & ~EFLAGS_ZF


def _visible(cpu: VirtualCpu, selector: int) -> Segment | None:
    """The descriptor if the current privilege level may see it. Raises `Raised` for a page fault."""
    try:
        segment = load_descriptor(cpu.target(), selector)
    except Raised as fault:
        if fault.vector == 14:
            raise
        return None
    if not segment.is_conforming and segment.dpl < max(cpu.cpl, selector & RPL_MASK):
        return None
    return segment
