"""A deprivileged guest's own processor: the state that its code is to find, while it runs at ring 3 of the real one.

General registers and arithmetic flags are the real ones. Control registers, descriptor tables, privilege level, IF,
IOPL and VM are kept here, and so is what the segment registers mean. `load` takes over what the real processor holds
once the guest has stopped, `store` has it go on. In between, what the processor room knows of instructions applies to
this processor as it does to the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import unicorn
from unicorn import unicorn_const

from hvproto.addresses import PAGE_SIZE, page_offset
from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.guest_ram import GuestRam
from hvproto.hypervisor.region import Frame
from hvproto.machine.physical_space import PhysicalSpace
from hvproto.processor.cpu import Cpu
from hvproto.processor.linear_memory import Behind
from hvproto.processor.long_mode import is_canonical
from hvproto.processor.model import TSC_MSR, Model
from hvproto.processor.paging import Access, PagingMode
from hvproto.processor.segments import (
    ACCESSED,
    CODE,
    DPL_MASK,
    NULL_SEGMENT,
    PRESENT,
    READABLE,
    RPL_MASK,
    S_BIT,
    TSS32_AVAILABLE,
    TYPE_SHIFT,
    WRITABLE,
    Segment,
    SegmentRegister,
    TableRegister,
    decode_descriptor,
    v86_segment,
)
from hvproto.processor.settings import (
    BASE_MSRS,
    CR0_ET,
    CR0_PE,
    CR0_PG,
    EFER_LMA,
    EFER_LME,
    EFER_MSR,
    EFLAGS_FIXED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_RF,
    EFLAGS_VIF,
    EFLAGS_VIP,
    EFLAGS_VM,
    Setting,
    SettingValue,
)

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor

RSP = 4
_CS, _SS = SegmentRegister.CS, SegmentRegister.SS
DATA_REGISTERS = (SegmentRegister.ES, SegmentRegister.DS, SegmentRegister.FS, SegmentRegister.GS)
VIRTUAL_FLAGS = EFLAGS_IF | EFLAGS_IOPL | EFLAGS_VM | EFLAGS_VIF | EFLAGS_VIP | EFLAGS_RF
"""Of EFLAGS: what the real processor has otherwise than the guest."""
_FS_BASE, _GS_BASE, _ = BASE_MSRS
_BASES = {_FS_BASE: SegmentRegister.FS, _GS_BASE: SegmentRegister.GS}
_RING_3_DATA = PRESENT | DPL_MASK | S_BIT | WRITABLE | ACCESSED
_RING_3_CODE = PRESENT | DPL_MASK | S_BIT | CODE | READABLE | ACCESSED
_NOT_TYPE = ~(0x1F << TYPE_SHIFT)


class VirtualCpu(Cpu):
    """The processor of one guest. ``now`` is the guest's own virtual time."""

    def __init__(self, processor: Processor, memory: GuestMemory, now: Callable[[], int], model: Model) -> None:
        """``model`` is what the guest's machine adds to CPUID, MSRs and CR8."""
        self.real = processor
        self.memory = memory
        self.ram = GuestRam(memory)
        self._now = now
        self._settings: dict[Setting, SettingValue] = {
            Setting.IDTR: TableRegister(0, 0x3FF),
            Setting.GDTR: TableRegister(0, 0xFFFF),
            Setting.LDTR: NULL_SEGMENT,
            Setting.TR: Segment(0, 0, 0xFFFF, PRESENT | TSS32_AVAILABLE << TYPE_SHIFT),
            Setting.CR0: CR0_PE | CR0_ET,
            Setting.CR3: 0,
            Setting.CR4: 0,
            Setting.EFER: 0,
        }
        self._cr2 = 0
        self._eip = 0
        self._esp = 0
        self.all_eflags = EFLAGS_FIXED
        """`eflags`, for who is in a hurry (`quick_exits`) and sees to the bits that are fixed."""
        self._segments = dict.fromkeys(SegmentRegister, NULL_SEGMENT)
        self._loaded: dict[SegmentRegister, Segment] = {}
        """What the real processor was given for a segment register, or was last found to hold."""
        self._unseen: set[SegmentRegister] = set()
        """Data segments that the guest may have loaded by itself since."""
        self._changed: set[SegmentRegister] = set(SegmentRegister)
        self._shadow = False
        self._nmi_blocked = False
        self._debug = {0: 0, 1: 0, 2: 0, 3: 0, 6: 0xFFFF_0FF0, 7: 0x400}
        self.msrs: dict[int, int] = {}
        self.behind: Behind = PhysicalSpace(None, memory.size, lambda: None)
        self._model = model
        self.on_setting: Callable[[Setting], None] = lambda _setting: None
        """Called after a setting was written."""
        self.at_hand: Callable[[int, bool, bool], int | None] = lambda _linear, _write, _user: None
        """The GPA of a linear address, by (address, for a write, as a program), where it is known without a walk: the
        guest's present tables allow that access, and have A and D set for it."""
        self._mode: PagingMode | None = None
        """`paging_mode`, once it has been asked for."""
        self.on_bits_set: Callable[[int], None] = lambda _linear: None
        """Called with a linear address after A or D bits were set in the tables that map it."""
        self.on_debug_change: Callable[[], None] = lambda: None

    # -- to and from the real processor ------------------------------------------------------

    def load(self, frame: Frame) -> None:
        """Take over the state of a guest that has just been stopped: what an exit's frame holds."""
        self._take(frame.eip, frame.esp, frame.eflags, frame.ss)

    def capture(self) -> None:
        """... of a guest that was stopped between two instructions: what the registers hold."""
        real = self.real
        self._take(real.eip, real.gpr(RSP), real.eflags, real.segment(SegmentRegister.SS).selector)
        if real.in_interrupt_shadow:
            self._shadow = True

    def _take(self, eip: int, esp: int, eflags: int, ss: int) -> None:
        # The processor reports its faults with RF set; in what a reflected one reports, delivery sets it again.
        self._eip, self._esp = eip, esp
        self.all_eflags = self.all_eflags & (VIRTUAL_FLAGS & ~EFLAGS_RF) | eflags & ~VIRTUAL_FLAGS
        self._shadow = False
        self._unseen.update(DATA_REGISTERS)
        if ss != self._loaded[SegmentRegister.SS].selector:
            self._segments[SegmentRegister.SS] = self._meaning_of(
                SegmentRegister.SS, Segment(ss, 0, 0xFFFF_FFFF, _RING_3_DATA)
            )

    def settle(self) -> None:
        """Know what all segment registers mean, without a look at the real processor later."""
        for register in DATA_REGISTERS:
            self.segment(register)

    def forget_real(self) -> None:
        """Nothing is known of what the real processor holds: `store` will load all of it."""
        self._loaded.clear()
        self._unseen.clear()
        self._changed.update(SegmentRegister)

    def store(self) -> None:
        """Have the real processor stand before the guest's next instruction, at ring 3."""
        real = self.real
        registers = self._changed | {SegmentRegister.CS, SegmentRegister.SS}
        changed = {register: self._deprivileged(register) for register in registers}
        self._loaded.update(changed)
        self._changed.clear()
        real.set_segments(changed)
        real.eip = self._eip
        real.set_gpr(RSP, self._esp)
        real.eflags = self.all_eflags & ~(VIRTUAL_FLAGS & ~EFLAGS_RF) | EFLAGS_IF

    def loaded(self, register: SegmentRegister) -> Segment:
        """What the real processor was given for a segment register by the last `store`."""
        return self._loaded[register]

    def note_loaded(self, held: tuple[Segment, Segment, Segment, Segment]) -> None:
        """The real processor has been given CS and SS by somebody else: what the guest's are, and what it holds."""
        segments, loaded = self._segments, self._loaded
        segments[_CS], segments[_SS], loaded[_CS], loaded[_SS] = held
        if len(self._unseen) < len(DATA_REGISTERS):
            self._unseen.update(DATA_REGISTERS)

    def _deprivileged(self, register: SegmentRegister) -> Segment:
        """A segment register as ring 3 has it: the same in all that a program can see."""
        segment = self._segments[register]
        attributes = segment.attributes
        if register is SegmentRegister.CS:
            attributes = attributes & _NOT_TYPE | _RING_3_CODE
        elif register is SegmentRegister.SS:
            attributes = attributes & _NOT_TYPE | _RING_3_DATA
        elif attributes & PRESENT:
            attributes |= DPL_MASK
        return Segment(segment.selector, segment.base, segment.limit, attributes)

    def _meaning_of(self, register: SegmentRegister, real: Segment) -> Segment:
        """What the guest has loaded without our help, with the guest's own rights."""
        selector = real.selector
        if not selector & ~RPL_MASK:
            return Segment(selector, real.base)
        if not self.is_protected or self.all_eflags & EFLAGS_VM:
            return v86_segment(selector)
        descriptor = self.peek_descriptor(selector)
        if descriptor is not None:
            found = decode_descriptor(selector, descriptor).accessed()
            if register is SegmentRegister.SS or (found.base, found.limit) == (real.base, real.limit):
                return found
        before = self._segments[register]
        return replace(before if before.selector == selector else real, base=real.base, limit=real.limit)

    # -- registers ---------------------------------------------------------------------------

    def gpr(self, index: int) -> int:
        return self._esp if index == RSP else self.real.gpr(index)

    def set_gpr(self, index: int, value: int) -> None:
        value = self.wrapped(value)
        if index == RSP:
            self._esp = value
        else:
            self.real.set_gpr(index, value)

    @property
    def eip(self) -> int:
        return self._eip

    @eip.setter
    def eip(self, value: int) -> None:
        self._eip = self.wrapped(value)

    @property
    def eflags(self) -> int:
        return self.all_eflags

    @eflags.setter
    def eflags(self, value: int) -> None:
        self.all_eflags = value & 0x3F_7FD7 | EFLAGS_FIXED

    @property
    def interrupts(self) -> bool:
        """The guest's IF."""
        return bool(self.all_eflags & EFLAGS_IF)

    @property
    def cr2(self) -> int:
        return self._cr2

    @cr2.setter
    def cr2(self, value: int) -> None:
        self._cr2 = self.wrapped(value)

    @property
    def cpl(self) -> int:
        if not self.is_protected:
            return 0
        return 3 if self.all_eflags & EFLAGS_VM else self._segments[SegmentRegister.SS].dpl

    @property
    def in_kernel(self) -> bool:
        """Whether the guest is at a level that paging calls supervisor: 0, 1 or 2."""
        return self.cpl != 3

    @property
    def is_protected(self) -> bool:
        """CR0.PE."""
        return bool(self.control(Setting.CR0) & CR0_PE)

    @property
    def by_paragraphs(self) -> bool:
        """Real or virtual-8086 mode: a selector is a base divided by 16."""
        return not self.is_protected or bool(self.all_eflags & EFLAGS_VM)

    # -- segments ----------------------------------------------------------------------------

    def segment(self, register: SegmentRegister) -> Segment:
        if register in self._unseen:
            self._unseen.discard(register)
            real = self.real.segment(register)
            if real != self._loaded.get(register):
                self._loaded[register] = real
                self._segments[register] = self._meaning_of(register, real)
        return self._segments[register]

    def set_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        self._segments.update(segments)
        self._changed.update(segments)
        self._unseen.difference_update(segments)

    # -- settings and other registers --------------------------------------------------------

    def read_setting(self, setting: Setting) -> SettingValue:
        return self._settings[setting]

    def write_setting(self, setting: Setting, value: SettingValue) -> None:
        """As by the processor's instructions: CR0.PG and EFER.LME together make EFER.LMA (SDM vol. 3, 9.8.5)."""
        if setting is Setting.CR0:
            assert isinstance(value, int)
            value |= CR0_ET
            self._settings[Setting.CR0] = value
            efer = self.control(Setting.EFER) & ~EFER_LMA
            self._settings[Setting.EFER] = efer | (EFER_LMA if value & CR0_PG and efer & EFER_LME else 0)
        elif setting is Setting.EFER:
            assert isinstance(value, int)
            self._settings[setting] = value & ~EFER_LMA | self.control(Setting.EFER) & EFER_LMA
        else:
            self._settings[setting] = value
        self._mode = None
        self.on_setting(setting)

    @property
    def paging_mode(self) -> PagingMode:
        if self._mode is None:
            self._mode = super().paging_mode
        return self._mode

    def msr(self, number: int) -> int:
        if number in _BASES:
            return self.segment(_BASES[number]).base
        if number == EFER_MSR:
            return self.control(Setting.EFER)
        if number == TSC_MSR:
            return self.now
        return self.msrs[number] if number in self.msrs else power_on_msr(number)

    def set_msr(self, number: int, value: int) -> None:
        if number in _BASES:
            register = _BASES[number]
            self.set_segments({register: replace(self.segment(register), base=value)})
        elif number == EFER_MSR:
            self.write_setting(Setting.EFER, value)
        else:
            self.msrs[number] = value

    def debug_register(self, number: int) -> int:
        return self._debug[number]

    def set_debug_register(self, number: int, value: int) -> None:
        self._debug[number] = value
        self.on_debug_change()

    def forget_code(self) -> None:
        """Each store to guest memory is heard of."""

    def debug_registers_change(self) -> None:
        """The instruction itself is emulated, and says what it writes."""

    @property
    def in_interrupt_shadow(self) -> bool:
        return self._shadow

    def set_shadow(self, on: bool) -> None:
        self._shadow = on

    @property
    def nmi_blocked(self) -> bool:
        return self._nmi_blocked

    def block_nmi(self) -> None:
        self._nmi_blocked = True

    def unblock_nmi(self) -> None:
        self._nmi_blocked = False

    def note_task_switch(self) -> None:
        """Each IRET is looked at anyhow."""

    @property
    def now(self) -> int:
        return self._now()

    @property
    def model(self) -> Model:
        return self._model

    # -- linear memory -----------------------------------------------------------------------

    def read_physical(self, physical: int, size: int) -> int | None:
        """An integer from guest-physical memory; all ones where there is none, as the processor's page walk finds."""
        value = self.memory.read_entry(physical, size)
        return (1 << 8 * size) - 1 if value is None else value

    def write_physical(self, physical: int, size: int, value: int) -> None:
        self.memory.write(physical, value.to_bytes(size, "little"))

    def has_ram(self, physical: int) -> bool:
        return self.memory.is_ram(physical)

    def mark_entry(self, physical: int, bits: int) -> None:
        if self.memory.is_ram(physical):
            self.memory.set_bits(physical, bits)

    def entries_marked(self, linear: int) -> None:
        self.on_bits_set(linear)

    def resolve(self, linear: int, access: Access, *, user: bool, mode: PagingMode) -> int:
        """GVA to GPA through the guest's own tables; from the mirror, where that knows as much."""
        if access is not Access.FETCH and mode is self._mode and (not mode.efer & EFER_LMA or is_canonical(linear)):
            known = self.at_hand(linear, access is Access.WRITE, user)
            if known is not None:
                return known
        return super().resolve(linear, access, user=user, mode=mode)

    def peek_some(self, linear: int, size: int) -> bytes:
        if page_offset(linear) + size <= PAGE_SIZE:
            known = self.at_hand(linear, False, False)
            if known is not None and self.memory.is_ram(known):
                return bytes(self.ram[known : known + size])
        return super().peek_some(linear, size)


@cache
def power_on_msr(number: int) -> int:
    """What the engine has in a model-specific register that nobody has written."""
    try:
        return int(unicorn.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64).msr_read(number))
    except unicorn.UcError:
        return 0
