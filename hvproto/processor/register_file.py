"""A processor's registers and settings, at their full width: what needs nothing but the engine."""

from __future__ import annotations

import capstone

from hvproto.processor.engine import (
    CR2_ID,
    DEBUG_IDS,
    EFLAGS_ID,
    EIP_ID,
    GPR_IDS,
    GPR_NAMES,
    SHORT_GPR_NAMES,
    WIDE_GPR_NAMES,
    Engine,
)
from hvproto.processor.paging import PagingMode
from hvproto.processor.segments import Segment, SegmentRegister, TableRegister
from hvproto.processor.settings import Setting, SettingValue
from hvproto.processor.state import SUMMARY_CODE_32, SUMMARY_CODE_64, SUMMARY_LONG


class RegisterFile:
    """The registers that an engine holds.

    They are 64 bits wide; outside long mode the upper half of what is written is dropped. The names are those of 32-bit
    code in all modes: ``eip`` is RIP in 64-bit code.
    """

    engine: Engine

    # -- registers ---------------------------------------------------------------------------

    @property
    def long_mode(self) -> bool:
        """EFER.LMA: 64-bit code or compatibility mode."""
        return bool(self.engine.state().summary.value & SUMMARY_LONG)

    @property
    def code64(self) -> bool:
        """Whether the code segment is one of 64 bits."""
        return bool(self.engine.state().summary.value & SUMMARY_CODE_64)

    def wrapped(self, value: int) -> int:
        """A register's or address's value as wide as the mode has it: 64 bits in long mode, else 32."""
        return value & (0xFFFF_FFFF_FFFF_FFFF if self.long_mode else 0xFFFF_FFFF)

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
    def code_address(self) -> int:
        """The linear address of the instruction at CS:EIP."""
        return self.wrapped(self.code.base + self.eip)

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

    @property
    def esp(self) -> int:
        return self.gpr(4)

    @esp.setter
    def esp(self, value: int) -> None:
        self.set_gpr(4, value)

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
        """Write DR0 to DR3 or DR6. What DR7 switches on only guest code can: ValueError."""
        if number not in (0, 1, 2, 3, 6):
            raise ValueError(f"DR{number} can't be written from outside")
        self.engine.write_register(DEBUG_IDS[number], value)

    def msr(self, number: int) -> int:
        """A model-specific register; 0 for one that the engine doesn't have."""
        return self.engine.read_msr(number)

    def set_msr(self, number: int, value: int) -> None:
        self.engine.write_msr(number, value)

    @property
    def cpl(self) -> int:
        return self.engine.cpl

    @property
    def code(self) -> Segment:
        return self.segment(SegmentRegister.CS)

    @property
    def stack(self) -> Segment:
        return self.segment(SegmentRegister.SS)

    def segment(self, register: SegmentRegister) -> Segment:
        return self.engine.read_segment(register)

    def set_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        """Load segment registers, hidden part and all; SS brings the CPL with its DPL. No table is looked at."""
        self.engine.write_segments(segments)

    def register(self, name: str) -> int:
        """A general register by its name of 16, 32 or 64 bits, zero-extended."""
        if name in SHORT_GPR_NAMES:
            return self.gpr(SHORT_GPR_NAMES.index(name)) & 0xFFFF
        for names, mask in ((WIDE_GPR_NAMES, 0xFFFF_FFFF_FFFF_FFFF), (GPR_NAMES, 0xFFFF_FFFF)):
            if name in names:
                return self.gpr(names.index(name)) & mask
        if name[0] == "r" and name[-1] == "d":
            return self.gpr(int(name[1:-1])) & 0xFFFF_FFFF
        raise ValueError(f"no general register of 16, 32 or 64 bits: {name}")

    # -- settings ----------------------------------------------------------------------------

    def read_setting(self, setting: Setting) -> SettingValue:
        return self.engine.read_setting(setting)

    def write_setting(self, setting: Setting, value: SettingValue) -> None:
        self.engine.write_setting(setting, value)

    def control(self, setting: Setting) -> int:
        """A control register or EFER."""
        value = self.engine.read_setting(setting)
        assert isinstance(value, int)
        return value

    @property
    def idtr(self) -> TableRegister:
        return self._table(Setting.IDTR)

    @property
    def gdtr(self) -> TableRegister:
        return self._table(Setting.GDTR)

    def _table(self, setting: Setting) -> TableRegister:
        value = self.engine.read_setting(setting)
        assert isinstance(value, TableRegister)
        return value

    @property
    def ldtr(self) -> Segment:
        return self._system_segment(Setting.LDTR)

    @property
    def tr(self) -> Segment:
        return self._system_segment(Setting.TR)

    def _system_segment(self, setting: Setting) -> Segment:
        value = self.engine.read_setting(setting)
        assert isinstance(value, Segment)
        return value

    @property
    def paging_mode(self) -> PagingMode:
        return PagingMode(*(self.control(s) for s in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER)))
