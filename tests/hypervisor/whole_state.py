"""All of a processor's state that code can see, and a machine that stops where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable

from unicorn import x86_const

from hvproto.machine.machine import Machine
from hvproto.processor.processor import Processor, Stop
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import Setting

MSRS = {
    "EFER": 0xC000_0080, "STAR": 0xC000_0081, "LSTAR": 0xC000_0082, "CSTAR": 0xC000_0083, "FMASK": 0xC000_0084,
    "FS_BASE": 0xC000_0100, "GS_BASE": 0xC000_0101, "KERNEL_GS_BASE": 0xC000_0102, "TSC_AUX": 0xC000_0103,
    "SYSENTER_CS": 0x174, "SYSENTER_ESP": 0x175, "SYSENTER_EIP": 0x176, "PAT": 0x277,
}  # fmt: skip
_FPU = (
    *(getattr(x86_const, f"UC_X86_REG_ST{n}") for n in range(8)),
    *(getattr(x86_const, f"UC_X86_REG_XMM{n}") for n in range(16)),
    x86_const.UC_X86_REG_FPCW, x86_const.UC_X86_REG_FPSW, x86_const.UC_X86_REG_FPTAG, x86_const.UC_X86_REG_MXCSR,
)  # fmt: skip


def everything(processor: Processor) -> dict[str, object]:
    """General, segment, control, debug, table, model-specific and FPU registers, and the hidden marks."""
    state: dict[str, object] = {f"r{n}": processor.gpr(n) for n in range(16)}
    state |= {"rip": processor.eip, "rflags": processor.eflags, "cr2": processor.cr2, "cpl": processor.cpl}
    state |= {setting.name: processor.read_setting(setting) for setting in Setting}
    state |= {register.name: processor.segment(register) for register in SegmentRegister}
    state |= {f"dr{n}": processor.debug_register(n) for n in (0, 1, 2, 3, 6, 7)}
    state |= {name: processor.msr(number) for name, number in MSRS.items()}
    state |= {f"fpu {number}": processor.engine.uc.reg_read(number) for number in _FPU}
    state |= {"shadow": processor.in_interrupt_shadow, "NMI blocked": processor.nmi_blocked}
    state |= {"long": processor.long_mode, "64": processor.code64, "decoder": processor.decoder_mode}
    return state


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return [f"{name}: {one[name]!r} / {other[name]!r}" for name in one if one[name] != other[name]]


class Stepper:
    """Has a machine stop after one instruction or so many cycles, again and again.

    ``stride`` is asked for the length of each run: 0 is one instruction. ``visit`` is called before each.
    """

    def __init__(self, machine: Machine, stride: Callable[[], int], visit: Callable[[], None]) -> None:
        self.machine, self.stride, self.visit = machine, stride, visit
        self.steps = 0
        self._slice, self._run = machine.slice, machine.run_processor
        machine.slice = self._visited_slice  # type: ignore[method-assign]
        machine.run_processor = self._short_run  # type: ignore[method-assign]

    def _visited_slice(self, limit: int) -> Stop:
        self.machine.run_processor = self._run  # type: ignore[method-assign]
        try:
            self.visit()
        finally:
            self.machine.run_processor = self._short_run  # type: ignore[method-assign]
        self.steps += 1
        return self._slice(limit)

    def _short_run(self, deadline: int) -> Stop:
        processor = self.machine.processor
        cycles = self.stride()
        if not cycles:
            processor.set_shadow(True)
        return self._run(min(deadline, processor.now + max(cycles, 1)))
