"""CPUID, MSRs and CR8 as far as they are about the local APIC and virtual time (Intel SDM vol. 3, 10.4 and 17.17).

The rest of what CPUID announces is the engine's: among it the MSRs of MTRRs, PAT and machine checks, which only keep
what is written, for nothing is cached here and nothing breaks.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.errors import MachineError, Unsupported, Where
from hvproto.machine.lapic import LocalApic
from hvproto.machine.physical_space import PhysicalSpace
from hvproto.processor.exceptions import Raised
from hvproto.processor.model import TSC_MSR, Identity

APIC_BASE_MSR = 0x1B
_FEATURES, _MORE_FEATURES = 1, 7
_APIC = 1 << 9
_ID_SHIFT, _ID_BITS = 24, 0xFF << 24
# Not here: x2APIC, the timer's TSC deadline. And RDRAND and RDSEED give other numbers in each run.
_NOT_HERE = 1 << 21 | 1 << 24 | 1 << 30
_NOT_HERE_EITHER = 1 << 7 | 1 << 18 | 1 << 20  # SMEP, RDSEED, SMAP
_PROTECTION = 13
_MSR_BITS = (1 << 64) - 1


class ModelRegisters:
    """Those of one machine. ``now`` gives virtual time in cycles; ``where`` is for errors."""

    def __init__(
        self, lapic: LocalApic, space: PhysicalSpace, now: Callable[[], int], where: Callable[[], Where]
    ) -> None:
        self._lapic = lapic
        self._space = space
        self._now = now
        self._where = where
        self._tsc_offset = 0

    @property
    def task_priority(self) -> int:
        return self._lapic.task_priority >> 4

    @task_priority.setter
    def task_priority(self, value: int) -> None:
        self._lapic.task_priority = value << 4

    def time_stamp(self, now: int) -> int:
        return now + self._tsc_offset & _MSR_BITS

    def identify(self, leaf: int, subleaf: int, identity: Identity) -> Identity:
        eax, ebx, ecx, edx = identity
        if leaf == _FEATURES:
            ebx = ebx & ~_ID_BITS | self._lapic.initial_id << _ID_SHIFT
            ecx &= ~_NOT_HERE
            edx = edx | _APIC if self._lapic.present else edx & ~_APIC
        elif leaf == _MORE_FEATURES and subleaf == 0:
            ebx &= ~_NOT_HERE_EITHER
        return Identity(eax, ebx, ecx, edx)

    def keeps_msr(self, number: int) -> bool:
        return number in (APIC_BASE_MSR, TSC_MSR)

    def read_msr(self, number: int) -> int:
        if number == APIC_BASE_MSR:
            return self._lapic.apic_base
        return self.time_stamp(self._now())

    def write_msr(self, number: int, value: int) -> None:
        if number == APIC_BASE_MSR:
            self._move_apic(value)
        elif number == TSC_MSR:
            self._tsc_offset = value - self._now()

    def _move_apic(self, value: int) -> None:
        lapic = self._lapic
        try:
            lapic.apic_base = value
        except ValueError:
            raise Raised(_PROTECTION, 0) from None
        self._space.detach(lapic)
        if not lapic.present:
            return
        try:
            self._space.attach(lapic, lapic.base)
        except MachineError as error:
            raise Unsupported(self._where(), f"IA32_APIC_BASE is set to {value:#x}: {error}") from None
