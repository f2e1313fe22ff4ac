"""What the semantics of instructions need of a processor, the real one or a virtual one of a guest."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import capstone

from hvproto.processor.exceptions import Raised, descriptor_place
from hvproto.processor.linear_memory import LinearMemory
from hvproto.processor.live_target import LiveTarget
from hvproto.processor.paging import PagingMode
from hvproto.processor.port_rights import port_allowed
from hvproto.processor.register_names import register_place
from hvproto.processor.segments import LONG, Segment, SegmentRegister, TableRegister
from hvproto.processor.settings import EFER_LMA, Setting, SettingValue

if TYPE_CHECKING:
    from hvproto.processor.model import Model

RSP = 4
LINEAR_32, LINEAR_64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


class Cpu(LinearMemory):
    """An x86 processor that stands between two instructions.

    Registers are 64 bits wide; outside long mode the upper half of what is written is dropped. The names are those
    of 32-bit code in all modes: ``eip`` is RIP in 64-bit code. What an instruction finds wrong it raises as `Raised`;
    who executes it delivers that.
    """

    replaces_returns = False
    """Whether `stand_ins` gives every IRET, not just those that the engine gets wrong."""

    # -- what each processor keeps in a way of its own -----------------------------------------

    @abstractmethod
    def gpr(self, index: int) -> int:
        """A general register by its machine encoding, 0 = EAX ... 7 = EDI, 8 = R8 ... 15 = R15."""

    @abstractmethod
    def set_gpr(self, index: int, value: int) -> None: ...

    @property
    @abstractmethod
    def eip(self) -> int: ...

    @eip.setter
    @abstractmethod
    def eip(self, value: int) -> None: ...

    @property
    @abstractmethod
    def eflags(self) -> int: ...

    @eflags.setter
    @abstractmethod
    def eflags(self, value: int) -> None: ...

    @property
    @abstractmethod
    def cr2(self) -> int: ...

    @cr2.setter
    @abstractmethod
    def cr2(self, value: int) -> None: ...

    @property
    @abstractmethod
    def cpl(self) -> int:
        """Current privilege level, 0-3."""

    @abstractmethod
    def segment(self, register: SegmentRegister) -> Segment:
        """A segment register with its hidden part."""

    @abstractmethod
    def set_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        """Load segment registers, hidden part and all; SS brings the CPL with its DPL. No table is looked at."""

    @abstractmethod
    def read_setting(self, setting: Setting) -> SettingValue: ...

    @abstractmethod
    def write_setting(self, setting: Setting, value: SettingValue) -> None: ...

    @abstractmethod
    def msr(self, number: int) -> int:
        """A model-specific register; 0 for one that the processor doesn't have."""

    @abstractmethod
    def set_msr(self, number: int, value: int) -> None: ...

    @abstractmethod
    def debug_register(self, number: int) -> int:
        """DR0 to DR3, DR6 or DR7."""

    @abstractmethod
    def set_debug_register(self, number: int, value: int) -> None: ...

    @property
    @abstractmethod
    def in_interrupt_shadow(self) -> bool:
        """Whether an STI or a load of SS, the last instruction, holds interrupts off for one more (SDM vol. 3, 6.8)."""

    @abstractmethod
    def set_shadow(self, on: bool) -> None:
        """Hold interrupts off for one instruction, as STI and a load of SS do, or no longer."""

    @property
    @abstractmethod
    def nmi_blocked(self) -> bool:
        """Whether an NMI has been delivered and no IRET executed since."""

    @abstractmethod
    def unblock_nmi(self) -> None:
        """An IRET is being executed: the next NMI may come (SDM vol. 3, 6.7.1)."""

    @property
    @abstractmethod
    def now(self) -> int:
        """Virtual time in cycles."""

    @property
    def model(self) -> Model | None:
        """What a machine around it adds to CPUID, to the MSRs and to CR8."""
        return None

    @abstractmethod
    def note_task_switch(self) -> None:
        """A hardware task switch is being done: from now on any IRET may be one back."""

    @abstractmethod
    def forget_code(self) -> None:
        """Memory that may be code was changed from outside, by no instruction."""

    @abstractmethod
    def debug_registers_change(self) -> None:
        """A MOV to a debug register is about to be executed."""

    # -- registers by other names --------------------------------------------------------------

    @property
    def esp(self) -> int:
        return self.gpr(RSP)

    @esp.setter
    def esp(self, value: int) -> None:
        self.set_gpr(RSP, value)

    @property
    def code(self) -> Segment:
        return self.segment(SegmentRegister.CS)

    @property
    def stack(self) -> Segment:
        return self.segment(SegmentRegister.SS)

    def register(self, name: str) -> int:
        """A general register by its name of 8 to 64 bits, zero-extended. Raises ValueError for another name."""
        index, shift, size = register_place(name)
        return self.gpr(index) >> shift & (1 << 8 * size) - 1

    def set_register(self, name: str, value: int) -> None:
        """Write a general register by its name of 8 to 64 bits; one of 32 clears the upper half, as in 64-bit code."""
        index, shift, size = register_place(name)
        mask = (1 << 8 * size) - 1
        rest = 0 if size == 4 else self.gpr(index) & ~(mask << shift)
        self.set_gpr(index, rest | (value & mask) << shift)

    # -- settings by name ----------------------------------------------------------------------

    def control(self, setting: Setting) -> int:
        """A control register or EFER."""
        value = self.read_setting(setting)
        assert isinstance(value, int)
        return value

    @property
    def idtr(self) -> TableRegister:
        return self._table(Setting.IDTR)

    @property
    def gdtr(self) -> TableRegister:
        return self._table(Setting.GDTR)

    def _table(self, setting: Setting) -> TableRegister:
        value = self.read_setting(setting)
        assert isinstance(value, TableRegister)
        return value

    @property
    def ldtr(self) -> Segment:
        return self._system_segment(Setting.LDTR)

    @property
    def tr(self) -> Segment:
        return self._system_segment(Setting.TR)

    def _system_segment(self, setting: Setting) -> Segment:
        value = self.read_setting(setting)
        assert isinstance(value, Segment)
        return value

    # -- the mode ------------------------------------------------------------------------------

    @property
    def paging_mode(self) -> PagingMode:
        return PagingMode(*(self.control(s) for s in (Setting.CR0, Setting.CR3, Setting.CR4, Setting.EFER)))

    @property
    def long_mode(self) -> bool:
        """EFER.LMA: 64-bit code or compatibility mode."""
        return bool(self.control(Setting.EFER) & EFER_LMA)

    @property
    def code64(self) -> bool:
        """Whether the code segment is one of 64 bits."""
        return self.long_mode and bool(self.code.attributes & LONG)

    @property
    def decoder_mode(self) -> int:
        """Capstone's constant for code as the code segment has it now."""
        if self.code64:
            return int(capstone.CS_MODE_64)
        return int(capstone.CS_MODE_32 if self.code.is_32bit else capstone.CS_MODE_16)

    def wrapped(self, value: int) -> int:
        """A register's or address's value as wide as the mode has it: 64 bits in long mode, else 32."""
        return value & (LINEAR_64 if self.long_mode else LINEAR_32)

    @property
    def code_address(self) -> int:
        """The linear address of the instruction at CS:EIP."""
        return self.wrapped(self.code.base + self.eip)

    # -- tables --------------------------------------------------------------------------------

    def target(self) -> LiveTarget:
        """The state as it is now, for one delivery or instruction."""
        return LiveTarget(self)

    def peek_descriptor(self, selector: int) -> int | None:
        """The 8 bytes that a selector names, without any effect; None where its table has none."""
        try:
            raw = self.peek(self.wrapped(descriptor_place(self.target(), selector)), 8)
        except Raised:
            return None
        return None if raw is None else int.from_bytes(raw, "little")

    def port_allowed(self, port: int, size: int) -> bool:
        """Whether IOPL or the I/O permission bitmap allow an access of so many bytes. Raises `Raised`."""
        return port_allowed(self, port, size)
