"""The virtual processor of a guest that runs inside a process of the host: all of its state is here while it stands.

The host's descriptors are in force, and a process has flat segments only: what the guest has in its segment registers
is virtual altogether, and every instruction that reads or loads one is executed here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvproto.hypervisor.guest_memory import GuestMemory
from hvproto.hypervisor.virtual_cpu import RSP, VIRTUAL_FLAGS, VirtualCpu
from hvproto.processor.model import Model
from hvproto.processor.segments import Segment, SegmentRegister
from hvproto.processor.settings import EFLAGS_IF, EFLAGS_RF, EFLAGS_TF

if TYPE_CHECKING:
    from hvproto.processor.processor import Processor

_KEPT = VIRTUAL_FLAGS & ~EFLAGS_RF | EFLAGS_TF
"""Of EFLAGS: what no guest instruction changes without our help."""


@dataclass(frozen=True, slots=True)
class SignalFrame:
    """A signal as the bundled host's kernel hands it to a program (guests/host/signals.asm): 20 words.

    ``registers`` are by their machine encoding, 0 = EAX ... 7 = EDI, ESP among them.
    """

    registers: tuple[int, ...]
    vector: int
    error_code: int
    eip: int
    eflags: int
    cr2: int

    layout = struct.Struct("<20I")

    @classmethod
    def unpack(cls, words: tuple[int, ...]) -> SignalFrame:
        """From the words of ``layout``: GS FS ES DS, EDI to EAX, vector, error code, EIP CS EFLAGS ESP SS, CR2."""
        edi, esi, ebp, _, ebx, edx, ecx, eax = words[4:12]
        vector, error_code, eip, _, eflags, esp = words[12:18]
        return cls((eax, ecx, edx, ebx, esp, ebp, esi, edi), vector, error_code, eip, eflags, words[19])

    def pack(self) -> bytes:
        """The bytes of ``layout``. Selectors, vector and error code are 0: nobody takes them from it."""
        eax, ecx, edx, ebx, esp, ebp, esi, edi = self.registers
        general = (edi, esi, ebp, 0, ebx, edx, ecx, eax)
        return self.layout.pack(0, 0, 0, 0, *general, 0, 0, self.eip, 0, self.eflags, esp, 0, 0)


class ProcessCpu(VirtualCpu):
    """A virtual processor whose general registers come and go with signals."""

    def __init__(self, processor: Processor, memory: GuestMemory, now: Callable[[], int], model: Model) -> None:
        super().__init__(processor, memory, now, model)
        self._registers = [0] * 8

    def take(self, signal: SignalFrame) -> None:
        """Take over the state of a guest that a signal has stopped."""
        self._registers = list(signal.registers)
        self._esp = signal.registers[RSP]
        self._eip = signal.eip
        self.all_eflags = self.all_eflags & _KEPT | signal.eflags & ~(_KEPT | EFLAGS_RF)
        self._shadow = False

    def give(self, *, one_step: bool) -> SignalFrame:
        """The state in which the guest is to go on; ``one_step``: with TF, whatever the guest's is."""
        flags = self.all_eflags & ~(VIRTUAL_FLAGS & ~EFLAGS_RF) | EFLAGS_IF | (EFLAGS_TF if one_step else 0)
        registers = [self.gpr(index) for index in range(8)]
        return SignalFrame(tuple(registers), 0, 0, self._eip, flags, 0)

    def gpr(self, index: int) -> int:
        return self._esp if index == RSP else self._registers[index]

    def set_gpr(self, index: int, value: int) -> None:
        value = self.wrapped(value)
        if index == RSP:
            self._esp = value
        else:
            self._registers[index] = value

    def segment(self, register: SegmentRegister) -> Segment:
        return self._segments[register]

    def set_segments(self, segments: dict[SegmentRegister, Segment]) -> None:
        self._segments.update(segments)
