"""An instruction of ours, executed by the engine between two runs: for what no public call of it does."""

from __future__ import annotations

from unicorn import x86_const

from hvproto.errors import EngineError
from hvproto.processor.engine import DEBUG_IDS, Engine, Outcome
from hvproto.processor.segments import SegmentRegister, flat
from hvproto.processor.settings import CR0_PE, CR0_PG, EFLAGS_FIXED, Setting

_RAX, _RIP, _FLAGS = x86_const.UC_X86_REG_RAX, x86_const.UC_X86_REG_RIP, x86_const.UC_X86_REG_EFLAGS
_HLT = b"\xf4"


def execute_privileged(engine: Engine, code: bytes, rax: int) -> None:
    """Execute 32-bit code at ring 0 without paging, with EAX given; what else it changes is the processor's for good.

    The rest of the state is put back piece by piece: a saved context would bring all of it back. Memory is as before.
    """
    registers = {register: engine.read_register(register) for register in (_RAX, _RIP, _FLAGS)}
    segments = {register: engine.read_segment(register) for register in (SegmentRegister.CS, SegmentRegister.SS)}
    cr0, shadow = engine.read_setting(Setting.CR0), engine.state().shadow
    assert isinstance(cr0, int)
    engine.write_setting(Setting.CR0, cr0 & ~CR0_PG | CR0_PE)
    engine.write_register(_FLAGS, EFLAGS_FIXED)
    engine.write_segments({
        SegmentRegister.CS: flat(0x08, code=True, dpl=0),
        SegmentRegister.SS: flat(0x10, code=False, dpl=0),
    })  # fmt: skip
    engine.write_register(_RAX, rax)
    breakpoints = [engine.read_register(number) for number in DEBUG_IDS[:4]]
    place = next(at for at in range(0, 80, 16) if not any(at <= linear < at + 16 for linear in breakpoints))
    outcome = engine.try_out(code + _HLT, place)
    if outcome is not Outcome.HALTED:
        raise EngineError(f"the engine can't execute {code.hex(' ')}: {outcome}")
    engine.write_register(_FLAGS, registers[_FLAGS])
    engine.write_setting(Setting.CR0, cr0)
    engine.write_segments(segments)
    for register, value in registers.items():
        engine.write_register(register, value)
    engine.set_shadow(shadow)
