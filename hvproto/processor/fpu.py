"""The floating-point and SSE registers as one value, to be kept and put back: those of FXSAVE (SDM vol. 1, 10.5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from unicorn import Uc, x86_const

_FP = [getattr(x86_const, f"UC_X86_REG_FP{n}") for n in range(8)]
_XMM = [getattr(x86_const, f"UC_X86_REG_XMM{n}") for n in range(16)]
_CONTROL, _STATUS, _TAGS = x86_const.UC_X86_REG_FPCW, x86_const.UC_X86_REG_FPSW, x86_const.UC_X86_REG_FPTAG
_MXCSR = x86_const.UC_X86_REG_MXCSR


@dataclass(frozen=True, slots=True)
class FpuState:
    """The defaults are those of FNINIT and of the power-on state."""

    control: int = 0x37F
    status: int = 0
    """With TOP."""
    tags: int = 0xFFFF
    registers: tuple[tuple[int, int], ...] = ((0, 0),) * 8
    """Mantissa (64 bits), and sign with exponent (16 bits); by number of the register, not by distance from TOP."""
    mxcsr: int = 0x1F80
    xmm: tuple[int, ...] = (0,) * 16


def read_fpu(uc: Uc) -> FpuState:
    """What these registers hold."""
    control, status, tags, mxcsr = (uc.reg_read(register) for register in (_CONTROL, _STATUS, _TAGS, _MXCSR))
    registers = tuple(tuple(uc.reg_read(register)) for register in _FP)
    return FpuState(control, status, tags, registers, mxcsr, tuple(uc.reg_read(register) for register in _XMM))


def write_fpu(uc: Uc, state: FpuState) -> None:
    """Have them hold this."""
    for register, value in zip(_FP, state.registers, strict=True):
        uc.reg_write(register, value)
    for register, number in zip(_XMM, state.xmm, strict=True):
        uc.reg_write(register, number)
    words = ((_CONTROL, state.control), (_STATUS, state.status), (_TAGS, state.tags), (_MXCSR, state.mxcsr))
    for register, number in words:
        uc.reg_write(register, number)
