"""IN, OUT, INS and OUTS of a deprivileged guest, on its own board."""

from __future__ import annotations

from typing import Protocol

from capstone import x86_const as cs

from hvproto.addresses import PAGE_MASK, PAGE_SIZE
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.exceptions import Raised
from hvproto.processor.instruction import Instruction
from hvproto.processor.paging import Access
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import CR4_DE, DR7_ENABLED, EFLAGS_DF, Setting

ECX, EDX, ESI, EDI = 1, 2, 6, 7
REP_PREFIXES = (0xF2, 0xF3)
PATIENCE = 256
"""Elements of a repeated INS or OUTS that are moved before the guest's interrupts and its limit are looked at."""
PROTECTION = 13
_IN_OR_OUT = 2


class PortSpace(Protocol):
    """What answers IN and OUT."""

    def read(self, port: int, size: int) -> int: ...
    def write(self, port: int, size: int, value: int) -> None: ...
    def read_many(self, port: int, size: int, count: int) -> bytes: ...
    def write_many(self, port: int, size: int, data: bytes) -> None: ...


STRING_SIZES = {
    cs.X86_INS_INSB: 1, cs.X86_INS_INSW: 2, cs.X86_INS_INSD: 4,
    cs.X86_INS_OUTSB: 1, cs.X86_INS_OUTSW: 2, cs.X86_INS_OUTSD: 4,
}  # fmt: skip
STRING_INPUTS = (cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD)
PORT_INSTRUCTIONS = frozenset({cs.X86_INS_IN, cs.X86_INS_OUT, *STRING_SIZES})


def execute(cpu: VirtualCpu, instruction: Instruction, ports: PortSpace) -> None:
    """Any of these instructions, EIP included. Raises `Raised`."""
    port, size = _port_of(cpu, instruction)
    if not cpu.port_allowed(port, size):
        raise Raised(PROTECTION, 0)
    if instruction.id in STRING_SIZES:
        _string(cpu, instruction, ports, port, size)
        return
    if instruction.id == cs.X86_INS_IN:
        instruction.write(instruction.operands[0], size, ports.read(port, size))
    else:
        ports.write(port, size, instruction.read(instruction.operands[1], size) or 0)
    cpu.eip += instruction.size


def breakpoints_hit(cpu: VirtualCpu, instruction: Instruction) -> int:
    """The bits of DR6 that an access to ports is going to set (SDM vol. 3, 17.2.4: R/W 10b, with CR4.DE)."""
    dr7 = cpu.debug_register(7)
    if not dr7 & DR7_ENABLED or instruction.id not in PORT_INSTRUCTIONS or not cpu.control(Setting.CR4) & CR4_DE:
        return 0
    port, size = _port_of(cpu, instruction)
    hits = 0
    for number in range(4):
        length = (1, 2, 8, 4)[dr7 >> 18 + 4 * number & 3]
        begin = cpu.debug_register(number) & ~(length - 1)
        if dr7 >> 2 * number & 3 and dr7 >> 16 + 4 * number & 3 == _IN_OR_OUT:
            hits |= (port < begin + length and begin < port + size) << number
    return hits


def _port_of(cpu: VirtualCpu, instruction: Instruction) -> tuple[int, int]:
    """(port, size in bytes) of any of these instructions."""
    if instruction.id in STRING_SIZES:
        return cpu.gpr(EDX) & 0xFFFF, STRING_SIZES[instruction.id]
    port, data = instruction.operands[1], instruction.operands[0]
    if instruction.id == cs.X86_INS_OUT:
        port, data = data, port
    number = port.imm if port.type == cs.X86_OP_IMM else cpu.gpr(EDX)
    return int(number) & 0xFFFF, int(data.size)


def _string(cpu: VirtualCpu, instruction: Instruction, ports: PortSpace, port: int, size: int) -> None:
    """INS or OUTS, repeated or not; moves EIP past it when all is done.

    A page fault leaves the registers after the last whole element. So does a count beyond PATIENCE: the guest executes
    the instruction again for the rest, as after an interrupt.
    """
    mask = (1 << 8 * instruction.address_size) - 1
    repeated = instruction.first_prefix in REP_PREFIXES
    step = -size if cpu.eflags & EFLAGS_DF else size
    is_input = instruction.id in STRING_INPUTS
    register = EDI if is_input else ESI
    base = _base(cpu, instruction, is_input)
    user = cpu.cpl == 3
    count = min(cpu.gpr(ECX) & mask, PATIENCE) if repeated else 1
    while step > 0 and count > 1:
        place = cpu.gpr(register) & mask
        address = cpu.wrapped(base + place)
        several = min(count, (PAGE_SIZE - (address & PAGE_MASK)) // size, (mask + 1 - place) // size)
        access = Access.WRITE if is_input else Access.READ
        if several < 2 or not cpu.has_ram(cpu.resolve(address, access, user=user, mode=cpu.paging_mode)):
            break
        if is_input:
            cpu.write_bytes(address, ports.read_many(port, size, several), user=user)
        else:
            ports.write_many(port, size, cpu.read_bytes(address, several * size, user=user))
        _advance(cpu, register, several * size, mask)
        _advance(cpu, ECX, -several, mask)
        count -= several
    for _ in range(count):
        address = cpu.wrapped(base + (cpu.gpr(register) & mask))
        if is_input:
            cpu.check_writable(address, size, user=user)  # before the device loses a datum
            cpu.write(address, size, ports.read(port, size), user=user)
        else:
            ports.write(port, size, cpu.read(address, size, user=user))
        _advance(cpu, register, step, mask)
        if repeated:
            _advance(cpu, ECX, -1, mask)
    if not repeated or not cpu.gpr(ECX) & mask:
        cpu.eip += instruction.size


def _base(cpu: VirtualCpu, instruction: Instruction, is_input: bool) -> int:
    """INS always stores through ES; OUTS may be told another segment than DS."""
    if is_input:
        return 0 if cpu.code64 else cpu.segment(SegmentRegister.ES).base
    memory = instruction.memory_operand()
    named = 0 if memory is None else memory.mem.segment
    register = SegmentRegister[instruction.name_of(named).upper()] if named else SegmentRegister.DS
    if cpu.code64 and register not in (SegmentRegister.FS, SegmentRegister.GS):
        return 0
    return cpu.segment(register).base


def _advance(cpu: VirtualCpu, register: int, by: int, mask: int) -> None:
    value = cpu.gpr(register)
    moved = value + by & mask
    cpu.set_gpr(register, moved if mask > 0xFFFF else value & ~mask | moved)
