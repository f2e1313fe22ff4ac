"""A processor's registers and settings, at their full width: what needs nothing but the engine."""

from __future__ import annotations

import capstone

from hvproto.processor.cpu import Cpu
from hvproto.processor.engine import (
    CR2_ID,
    DEBUG_IDS,
    EFLAGS_ID,
    EIP_ID,
    GPR_IDS,
    GPR_NAMES,
    WIDE_GPR_NAMES,
    Engine,
)
from hvproto.processor.paging import PagingMode
from hvproto.processor.segments import Segment, SegmentRegister
from hvproto.processor.settings import Setting, SettingValue
from hvproto.processor.state import SUMMARY_CODE_32, SUMMARY_CODE_64, SUMMARY_LONG


class RegisterFile(Cpu):
    """The registers and settings that an engine holds."""

    engine: Engine
    ram: memoryview

    # -- registers ---------------------------------------------------------------------------

    @property
    def long_mode(self) -> bool:
        """EFER.LMA: 64-bit code or compatibility mode."""
        return bool(self.engine.state().summary.value & SUMMARY_LONG)

    @property
    def paging_mode(self) -> PagingMode:
        return PagingMode(*self.engine.paging_words())

    @property
    def code64(self) -> bool:
        """Whether the code segment is one of 64 bits."""
        return bool(self.engine.state().summary.value & SUMMARY_CODE_64)

    @property
    def eip(self) -> int:
        return self.engine.read_register(EIP_ID)

    @eip.setter
    def eip(self, value: int) -> None:
        self.engine.write_register(EIP_ID, self.wrapped(value))

    @property
    def decoder_mode(self) -> int:
        """Capstone's constant for code as the code segment has it now."""
        if self.code64:
            return int(capstone.CS_MODE_64)
        return int(capstone.CS_MODE_32 if self.engine.state().summary.value & SUMMARY_CODE_32 else capstone.CS_MODE_16)

    @property
    def eflags(self) -> int:
        return self.engine.read_register(EFLAGS_ID)

    @eflags.setter
    def eflags(self, value: int) -> None:
        self.engine.write_register(EFLAGS_ID, value)

    @property
    def cr2(self) -> int:
        return self.engine.read_register(CR2_ID)

    @cr2.setter
    def cr2(self, value: int) -> None:
        self.engine.write_register(CR2_ID, value)

    def gpr(self, index: int) -> int:
        """A general register by its machine encoding, 0 = EAX ... 7 = EDI, 8 = R8 ... 15 = R15."""
        return self.engine.read_register(GPR_IDS[index])

    def set_gpr(self, index: int, value: int) -> None:
        self.engine.write_register(GPR_IDS[index], self.wrapped(value))

    def registers(self) -> dict[str, int]:
        """The general registers, the instruction pointer and the flags by name; in long mode all sixteen."""
        if self.long_mode:
            named = {name: self.gpr(index) for index, name in enumerate(WIDE_GPR_NAMES)}
            return {**named, "rip": self.eip, "rflags": self.eflags}
        named = {name: self.gpr(index) & 0xFFFF_FFFF for index, name in enumerate(GPR_NAMES)}
        return {**named, "eip": self.eip, "eflags": self.eflags}

    def debug_register(self, number: int) -> int:
        """DR0 to DR3, DR6 or DR7."""
        return self.engine.read_register(DEBUG_IDS[number])

    def set_debug_register(self, number: int, value: int) -> None:
        """Write DR0 to DR3, DR6 or DR7; not in a run, but for DR6. Raises ValueError for another."""
        if number == 7:
            self.engine.write_dr7(value)
        elif number in (0, 1, 2, 3, 6):
            self.engine.write_register(DEBUG_IDS[number], value)
        else:
            raise ValueError(f"there is no DR{number}")

    def msr(self, number: int) -> int:
        """A model-specific register; 0 for one that the engine doesn't have."""
        return self.engine.read_msr(number)

    def set_msr(self, number: int, value: int) -> None:
        self.engine.write_msr(number, value)

    @property
    def cpl(self) -> int:
        return self.engine.cpl

    def segment(self, register: SegmentRegister) -> Segment:
        return self.engine.read_segment(register)

    def set_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        """Load segment registers, hidden part and all; SS brings the CPL with its DPL. No table is looked at."""
        self.engine.write_segments(segments)

    @property
    def in_interrupt_shadow(self) -> bool:
        return self.engine.state().shadow

    def set_shadow(self, on: bool) -> None:
        self.engine.set_shadow(on)

    @property
    def nmi_blocked(self) -> bool:
        return self.engine.state().nmi_blocked

    def unblock_nmi(self) -> None:
        if self.nmi_blocked:
            self.engine.unblock_nmi()

    @property
    def now(self) -> int:
        """Virtual time in cycles; live, also inside a run."""
        return self.engine.now

    # -- settings ----------------------------------------------------------------------------

    def read_setting(self, setting: Setting) -> SettingValue:
        return self.engine.read_setting(setting)

    def write_setting(self, setting: Setting, value: SettingValue) -> None:
        self.engine.write_setting(setting, value)
