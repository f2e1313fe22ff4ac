"""Emulation of the privileged and sensitive instructions of a deprivileged guest kernel (SDM vol. 3, 2.8).

Each one acts on the guest's virtual processor; a fault that it would have raised there comes out as
`Raised` with nothing changed. What the processor room does in Python for the real processor - checks, far transfers,
task switches, IRET, system calls - it does here for the virtual one. System instructions are in `emulate_system`, ports
in `port_io`.
"""

from __future__ import annotations

from collections.abc import Callable

from capstone import x86_const as cs

from hvproto.hypervisor import emulate_system as system
from hvproto.hypervisor import paragraphs, port_io, segment_loads
from hvproto.hypervisor.emulate_system import Environment
from hvproto.hypervisor.port_io import PortSpace
from hvproto.hypervisor.sensitive import FLAG_POPS, FLAG_PUSHES, IRETS, SEGMENT_LOADS, SEGMENT_NUMBERS, loads_segment
from hvproto.hypervisor.virtual_cpu import VirtualCpu
from hvproto.processor import guards, stand_ins, system_calls
from hvproto.processor.engine import SystemCall
from hvproto.processor.exceptions import Raised
from hvproto.processor.far_memory import current_stack
from hvproto.processor.instruction import Instruction
from hvproto.processor.interrupt_return import interrupt_return
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import (
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_RF,
    EFLAGS_VM,
)
from hvproto.processor.unasked import POPPED

INVALID_OPCODE, PROTECTION = 6, 13
_SYSTEM_CALLS = {cs.X86_INS_SYSCALL: SystemCall.SYSCALL, cs.X86_INS_SYSENTER: SystemCall.SYSENTER}


def popped(eflags: int, value: int, level: int, size: int) -> int:
    """EFLAGS after a POPF of ``size`` bytes at privilege ``level`` (SDM vol. 2, POPF)."""
    writable = POPPED
    if level == 0:
        writable |= EFLAGS_IOPL
    if level <= (eflags & EFLAGS_IOPL) >> 12:
        writable |= EFLAGS_IF
    if size == 2:
        writable &= 0xFFFF
    return eflags & ~(writable | EFLAGS_RF) | value & writable | EFLAGS_FIXED


class Emulator:
    """Executes single guest instructions on the virtual processor."""

    def __init__(self, cpu: VirtualCpu, ports: PortSpace, environment: Environment) -> None:
        self.cpu = cpu
        self._ports = ports
        self._environment = environment
        self._actions: dict[int, Callable[[Instruction], bool | None]] = {
            cs.X86_INS_CLI: self._cli,
            cs.X86_INS_STI: self._sti,
            cs.X86_INS_HLT: self._hlt,
            cs.X86_INS_MOV: self._mov,
            cs.X86_INS_PUSH: self._push,
            cs.X86_INS_POP: self._pop,
            **dict.fromkeys(FLAG_PUSHES, self._pushf),
            **dict.fromkeys(FLAG_POPS, self._popf),
            **dict.fromkeys(IRETS, lambda i: interrupt_return(self.cpu, i)),
            **dict.fromkeys(SEGMENT_LOADS, self._load_far_pointer),
            **dict.fromkeys(port_io.PORT_INSTRUCTIONS, lambda i: port_io.execute(self.cpu, i, self._ports)),
            **dict.fromkeys(_SYSTEM_CALLS, self._system_call),
        }

    def execute(self, instruction: Instruction) -> bool:
        """Execute one instruction for the guest's current privilege level and move EIP past it.

        False if it isn't one that is emulated: the fault that brought it here is the guest's own. Raises `Raised`.
        """
        cpu = self.cpu
        loaded = loads_segment(instruction.decoded)
        if loaded in (0, cs.X86_REG_SS) or instruction.id != cs.X86_INS_MOV:
            guards.check(cpu, instruction)
        action = None if instruction.id in IRETS else stand_ins.replacement(cpu, instruction)
        if action is not None:
            action()
            return True
        if cpu.by_paragraphs and paragraphs.far_transfer(cpu, instruction):
            return True
        handler = self._actions.get(instruction.id)
        if handler is not None:
            before = cpu.eip
            if handler(instruction) is False:
                return False
            if cpu.eip == before and instruction.id not in _TRANSFERS:
                self._advance(instruction)
            return True
        if system.execute(cpu, instruction, self._environment):
            self._advance(instruction)
            return True
        return False

    def _advance(self, instruction: Instruction) -> None:
        self.cpu.eip += instruction.size

    # -- flags -------------------------------------------------------------------------------

    def _check_level(self) -> None:
        """CLI and STI need a privilege level that IOPL lets (SDM vol. 2, CLI)."""
        if self.cpu.cpl > (self.cpu.eflags & EFLAGS_IOPL) >> 12:
            raise Raised(PROTECTION, 0)

    def _cli(self, _instruction: Instruction) -> None:
        self._check_level()
        self.cpu.eflags &= ~EFLAGS_IF

    def _sti(self, _instruction: Instruction) -> None:
        self._check_level()
        if not self.cpu.interrupts:
            self.cpu.set_shadow(True)
        self.cpu.eflags |= EFLAGS_IF

    def _hlt(self, instruction: Instruction) -> None:
        if self.cpu.cpl:
            raise Raised(PROTECTION, 0)
        self._advance(instruction)
        self._environment.halt()

    def _check_v86(self) -> None:
        """In virtual-8086 mode PUSHF, POPF, INT n and IRET need IOPL 3 (SDM vol. 3, 20.2.8)."""
        if self.cpu.eflags & EFLAGS_VM and self.cpu.eflags & EFLAGS_IOPL != EFLAGS_IOPL:
            raise Raised(PROTECTION, 0)

    def _pushf(self, instruction: Instruction) -> None:
        self._check_v86()
        cpu = self.cpu
        stack = current_stack(cpu, cpu.target())
        size = _stack_size(instruction, cpu)
        stack.push(size, cpu.eflags & ~(EFLAGS_VM | EFLAGS_RF))
        cpu.esp = stack.pointer

    def _popf(self, instruction: Instruction) -> None:
        self._check_v86()
        cpu = self.cpu
        size = _stack_size(instruction, cpu)
        stack = current_stack(cpu, cpu.target())
        value = stack.peek(0, size)
        cpu.eflags = popped(cpu.eflags, value, cpu.cpl, size)
        cpu.esp = stack.moved(size)

    # -- segments ----------------------------------------------------------------------------

    def _mov(self, instruction: Instruction) -> bool:
        target, source = instruction.operands
        if target.type == cs.X86_OP_REG and target.reg in SEGMENT_NUMBERS:
            if target.reg == cs.X86_REG_CS:
                raise Raised(INVALID_OPCODE)  # whatever its operand
            segment_loads.load(self.cpu, _named(instruction, target.reg), instruction.load(source, 2))
            return True
        return system.move(self.cpu, instruction, self._environment)

    def _push(self, instruction: Instruction) -> bool:
        operand = instruction.operands[0]
        if operand.type != cs.X86_OP_REG or operand.reg not in SEGMENT_NUMBERS:
            return False
        cpu = self.cpu
        stack = current_stack(cpu, cpu.target())
        stack.push(_stack_size(instruction, cpu), cpu.segment(_named(instruction, operand.reg)).selector)
        cpu.esp = stack.pointer
        return True

    def _pop(self, instruction: Instruction) -> bool:
        operand = instruction.operands[0]
        if operand.type != cs.X86_OP_REG or operand.reg not in SEGMENT_NUMBERS:
            return False
        cpu = self.cpu
        stack = current_stack(cpu, cpu.target())
        size = _stack_size(instruction, cpu)
        selector = stack.peek(0, size) & 0xFFFF
        pointer = stack.moved(size)
        segment_loads.load(cpu, _named(instruction, operand.reg), selector)
        cpu.esp = pointer
        return True

    def _load_far_pointer(self, instruction: Instruction) -> None:
        register = SegmentRegister[instruction.mnemonic[1:].upper()]
        target, source = instruction.operands
        size = instruction.operand_size
        address = instruction.linear_address(source.mem)
        user = self.cpu.cpl == 3
        offset = self.cpu.read(address, size, user=user)
        selector = self.cpu.read(self.cpu.wrapped(address + size), 2, user=user)
        segment_loads.load(self.cpu, register, selector)
        instruction.write(target, size, offset)

    # -- system calls ------------------------------------------------------------------------

    def _system_call(self, instruction: Instruction) -> None:
        system_calls.perform(self.cpu, _SYSTEM_CALLS[instruction.id], self.cpu.eip + instruction.size)


_TRANSFERS = IRETS | frozenset(_SYSTEM_CALLS) | port_io.PORT_INSTRUCTIONS | {cs.X86_INS_HLT}


def _named(instruction: Instruction, register: int) -> SegmentRegister:
    return SegmentRegister[instruction.name_of(register).upper()]


def _stack_size(instruction: Instruction, cpu: VirtualCpu) -> int:
    """What PUSH and POP of flags and segment registers move, in bytes: in 64-bit code 8, or 2 with a prefix."""
    size = instruction.operand_size
    return 8 if cpu.code64 and size == 4 else size
