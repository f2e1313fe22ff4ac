"""IN, OUT, INS and OUTS of a deprivileged guest, on its own board."""

from __future__ import annotations

from typing import Protocol

from capstone import x86_const as cs

from hvproto.hypervisor.operands import Operands
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import EFLAGS_DF

ECX, EDX, ESI, EDI = 1, 2, 6, 7
REP_PREFIXES = (0xF2, 0xF3)
PATIENCE = 256
"""Elements of a repeated INS or OUTS that are moved before the guest's interrupts and its limit are looked at."""


class PortSpace(Protocol):
    """What answers IN and OUT."""

    def read(self, port: int, size: int) -> int: ...
    def write(self, port: int, size: int, value: int) -> None: ...


STRING_SIZES = {
    cs.X86_INS_INSB: 1, cs.X86_INS_INSW: 2, cs.X86_INS_INSD: 4,
    cs.X86_INS_OUTSB: 1, cs.X86_INS_OUTSW: 2, cs.X86_INS_OUTSD: 4,
}  # fmt: skip
STRING_INPUTS = (cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD)


def port_of(operands: Operands) -> tuple[int, int]:
    """(port, size in bytes) of any of these instructions."""
    number = operands.instruction.id
    if number in STRING_SIZES:
        return operands.read_register(cs.X86_REG_DX), STRING_SIZES[number]
    port, data = (1, 0) if number == cs.X86_INS_IN else (0, 1)
    return operands.read(port) & 0xFFFF, operands.size(data)


def port_allowed(cpu: VirtualCpu, port: int, size: int) -> bool:
    """Whether the guest's IOPL or its TSS's bitmap let its current level at a port (SDM vol. 1, 19.5)."""
    if cpu.cpl <= cpu.iopl:
        return True
    tr = cpu.tr
    if not tr.present or tr.limit < 0x67:
        return False
    at = cpu.read(tr.base + 0x66, 2) + port // 8
    if at + 1 > tr.limit:
        return False
    return not cpu.read(tr.base + at, 2) >> (port & 7) & ((1 << size) - 1)


def port_in(operands: Operands, ports: PortSpace) -> None:
    port, size = port_of(operands)
    operands.write(0, ports.read(port, size))


def port_out(operands: Operands, ports: PortSpace) -> None:
    port, size = port_of(operands)
    ports.write(port, size, operands.read(1) & ((1 << 8 * size) - 1))


def string(cpu: VirtualCpu, operands: Operands, ports: PortSpace) -> None:
    """INS or OUTS, repeated or not; moves EIP past it when all is done.

    A page fault leaves the registers after the last whole element. So does a count beyond PATIENCE: the guest executes
    the instruction again for the rest, as after an interrupt.
    """
    instruction = operands.instruction
    port, size = port_of(operands)
    wide = instruction.addr_size == 4
    mask = 0xFFFF_FFFF if wide else 0xFFFF
    repeated = instruction.prefix[0] in REP_PREFIXES
    step = -size if cpu.real_eflags & EFLAGS_DF else size
    is_input = instruction.id in STRING_INPUTS
    register = EDI if is_input else ESI
    # INS always stores through ES; OUTS may be told another segment than DS.
    base = cpu.segment_base(SegmentRegister.ES) if is_input else operands.address(1) - (cpu.gpr(ESI) & mask)
    user = cpu.cpl == 3
    for _ in range(min(cpu.gpr(ECX) & mask, PATIENCE) if repeated else 1):
        address = base + (cpu.gpr(register) & mask) & 0xFFFF_FFFF
        if is_input:
            # Faults before the device loses a datum.
            cpu.write(address, size, cpu.read(address, size, user=user), user=user)
            cpu.write(address, size, ports.read(port, size), user=user)
        else:
            ports.write(port, size, cpu.read(address, size, user=user))
        _advance(cpu, register, step, mask)
        if repeated:
            _advance(cpu, ECX, -1, mask)
    if not repeated or not cpu.gpr(ECX) & mask:
        cpu.eip = cpu.eip + instruction.size & 0xFFFF_FFFF


def _advance(cpu: VirtualCpu, register: int, by: int, mask: int) -> None:
    value = cpu.gpr(register)
    cpu.set_gpr(register, value & ~mask & 0xFFFF_FFFF | value + by & mask)
