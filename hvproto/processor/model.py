"""What the machine around a processor adds to it: a local APIC, and the facts about it in CPUID, MSRs and CR8.

A processor that nobody has built into a machine, or that a hosted guest has, is without: there the engine answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import unicorn
from capstone import x86_const as cs
from unicorn import unicorn_const as uc_const
from unicorn import x86_const

from hvproto.processor.settings import Setting

if TYPE_CHECKING:
    from hvproto.processor.cpu import Cpu
    from hvproto.processor.instruction import Instruction

TSC_MSR = 0x10
RAX, RCX, RDX, RBX = 0, 1, 2, 3
_LOW = 0xFFFF_FFFF
_FEATURES = 1
_OSXSAVE, _CR4_OSXSAVE = 1 << 27, 1 << 18
_CPUID = b"\x0f\xa2"


class Identity(NamedTuple):
    """The four registers that CPUID gives."""

    eax: int
    ebx: int
    ecx: int
    edx: int


class Model(Protocol):
    """What a machine knows better than the engine."""

    task_priority: int
    """CR8: 0 to 15."""

    def identify(self, leaf: int, subleaf: int, identity: Identity) -> Identity:
        """CPUID's answer, made from the engine's."""

    def time_stamp(self, now: int) -> int:
        """The time-stamp counter at a cycle of virtual time."""

    def keeps_msr(self, number: int) -> bool:
        """Whether an MSR is the machine's; the engine has the others."""

    def read_msr(self, number: int) -> int:
        """RDMSR of one that it keeps. Raises `Raised`."""

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR of one that it keeps. Raises `Raised`."""


def replacement(processor: Cpu, model: Model | None, instruction: Instruction) -> Callable[[], None] | None:
    """What to do instead of CPUID, RDMSR, WRMSR or a MOV of CR8; None if the engine is to execute the instruction."""
    if model is None:
        return None
    match instruction.id:
        case cs.X86_INS_CPUID:
            return partial(_identify, processor, model, instruction)
        case cs.X86_INS_RDMSR | cs.X86_INS_WRMSR:
            action = _read_msr if instruction.id == cs.X86_INS_RDMSR else _write_msr
            kept = model.keeps_msr(processor.gpr(RCX) & _LOW)
            return partial(action, processor, model, instruction) if kept else None
        case cs.X86_INS_MOV:
            return partial(_move_task_priority, processor, model, instruction)
    return None


def _move_task_priority(processor: Cpu, model: Model, instruction: Instruction) -> None:
    target, source = instruction.operands
    if instruction.loads(cs.X86_REG_CR8):
        model.task_priority = instruction.read(source, 8) or 0
    else:
        instruction.write(target, 8, model.task_priority)
    processor.eip += instruction.size


def _read_msr(processor: Cpu, model: Model, instruction: Instruction) -> None:
    value = model.read_msr(processor.gpr(RCX) & _LOW)
    processor.set_gpr(RAX, value & _LOW)
    processor.set_gpr(RDX, value >> 32 & _LOW)
    processor.eip += instruction.size


def _write_msr(processor: Cpu, model: Model, instruction: Instruction) -> None:
    value = (processor.gpr(RDX) & _LOW) << 32 | processor.gpr(RAX) & _LOW
    model.write_msr(processor.gpr(RCX) & _LOW, value)
    processor.eip += instruction.size


def _identify(processor: Cpu, model: Model, instruction: Instruction) -> None:
    leaf, subleaf = processor.gpr(RAX) & _LOW, processor.gpr(RCX) & _LOW
    identity = engine_identity(leaf, subleaf)
    if leaf == _FEATURES:
        saves = _OSXSAVE if processor.control(Setting.CR4) & _CR4_OSXSAVE else 0
        identity = identity._replace(ecx=identity.ecx & ~_OSXSAVE | saves)
    for register, value in zip((RAX, RBX, RCX, RDX), model.identify(leaf, subleaf, identity), strict=True):
        processor.set_gpr(register, value)
    processor.eip += instruction.size


@cache
def engine_identity(leaf: int, subleaf: int) -> Identity:
    """What the engine's own CPUID gives, by one made just to ask it: some milliseconds for each leaf."""
    uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
    uc.mem_map(0, 0x1000)
    uc.mem_write(0, _CPUID)
    uc.reg_write(x86_const.UC_X86_REG_RAX, leaf)
    uc.reg_write(x86_const.UC_X86_REG_RCX, subleaf)
    uc.emu_start(0, len(_CPUID), count=1)
    names = (x86_const.UC_X86_REG_EAX, x86_const.UC_X86_REG_EBX, x86_const.UC_X86_REG_ECX, x86_const.UC_X86_REG_EDX)
    return Identity(*(uc.reg_read(name) for name in names))
