"""Long mode entered and left from Python, setting by setting (SDM vol. 3, 9.8.5).

The engine has EFER.LMA from nothing but CR0.PG going on and off. A hypervisor that puts another environment's settings
in place writes them one by one, in an order of its own, and each must be read back as it was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unicorn import x86_const

from hvproto.processor.settings import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFER_MSR

if TYPE_CHECKING:
    from hvproto.processor.engine import Engine

_CR0, _CR4, _RIP = x86_const.UC_X86_REG_CR0, x86_const.UC_X86_REG_CR4, x86_const.UC_X86_REG_RIP


def write_efer(engine: Engine, value: int) -> None:
    """EFER, LMA included. Where that can't be set yet, since paging is off, the write of CR0 that follows sets it."""
    present = engine.read_msr(EFER_MSR)
    cr0 = engine.read_register(_CR0)
    if not (value ^ present) & EFER_LMA or not cr0 & CR0_PG:
        engine.write_msr(EFER_MSR, value)
        return
    eip = engine.read_register(_RIP)
    engine.write_register(_CR0, cr0 & ~CR0_PG)
    if value & EFER_LMA:
        engine.write_msr(EFER_MSR, value | EFER_LME)
        _page(engine, cr0)
    else:
        engine.write_msr(EFER_MSR, value & ~EFER_LME)
        engine.write_register(_CR0, cr0)
        engine.write_msr(EFER_MSR, value)  # LME without LMA: of an environment whose paging is about to go off
    engine.write_register(_RIP, eip)
    engine.summarize()


def write_cr0(engine: Engine, value: int) -> None:
    """CR0. With PG it enters and leaves long mode by EFER.LME, whatever CR4.PAE is yet."""
    changes = (value ^ engine.read_register(_CR0)) & CR0_PG
    if not changes or not engine.read_msr(EFER_MSR) & EFER_LME:
        engine.write_register(_CR0, value)
        return
    eip = engine.read_register(_RIP)
    if value & CR0_PG:
        _page(engine, value)
    else:
        engine.write_register(_CR0, value)
    engine.write_register(_RIP, eip)
    engine.summarize()


def _page(engine: Engine, cr0: int) -> None:
    """Set CR0.PG, with PAE at that moment: without, the engine refuses to enter long mode."""
    cr4 = engine.read_register(_CR4)
    engine.write_register(_CR4, cr4 | CR4_PAE)
    engine.write_register(_CR0, cr0 | CR0_PE)
    engine.write_register(_CR4, cr4)
