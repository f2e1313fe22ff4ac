"""The system instructions of a kernel that switches between processes, done in the engine's run: MOV to CR3, and LTR.

A small kernel loads TR and a root for each of them, and another root when it comes back: three full exits, of some 200
Y (of an empty hook) each and what there is to do. What is done here is what `Exits` and `AddressSpace.prepare` do, for
32-bit kernels with 2-level paging or none; where the region would have to move, something would fault, or anything
else is out of the ordinary, nothing is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvproto.hypervisor import emulate_system
from hvproto.hypervisor.quick_transfers import KERNEL, QuickTransfers
from hvproto.processor.engine import GPR_IDS, UnmappedAccess
from hvproto.processor.exceptions import Raised, descriptor_place
from hvproto.processor.paging import Access
from hvproto.processor.segments import RPL_MASK, TABLE_INDICATOR
from hvproto.processor.settings import CR4_PAE, EFER_LMA, Setting

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest
    from hvproto.processor.native import NativeEngine

LENGTH = 3
"""Of both, in bytes."""
_MOV_TO_CONTROL, _SYSTEM_SEGMENT = b"\x0f\x22", b"\x0f\x00"
_OF_CR3 = _OF_LTR = 0xD8
"""The ModR/M byte but for the register that it names."""
_WHOLE = 0xFFFF_FFFF
_TYPE_BYTE = 5
"""Of a descriptor: the byte with the busy bit."""


class QuickSystem:
    """Of one guest."""

    def __init__(self, guest: MirroredGuest, engine: NativeEngine, transfers: QuickTransfers) -> None:
        self._cpu = guest.cpu
        self._space = guest.space
        self._engine = engine
        self._transfers = transfers

    def answer(self, code: bytes) -> bool:
        """Execute what begins with these bytes, in the guest's kernel; False, and nothing done, if that isn't here."""
        if len(code) < LENGTH or code[2] & 0xF8 != _OF_CR3:
            return False
        kind, value = code[:2], self._engine.read_register(GPR_IDS[code[2] & 7]) & _WHOLE
        if kind == _MOV_TO_CONTROL:
            return self._load_root(value)
        return kind == _SYSTEM_SEGMENT and self._load_task(value & 0xFFFF)

    def _load_root(self, cr3: int) -> bool:
        space = self._space
        space.stores.follow_waiting()
        if self._cpu.control(Setting.CR4) & CR4_PAE or space.stores.wait or not self._transfers.knows(KERNEL):
            return False
        if not space.switch_root(cr3):
            return False
        self._transfers.reload()
        return True

    def _load_task(self, selector: int) -> bool:
        cpu, space = self._cpu, self._space
        if not selector & ~RPL_MASK or selector & TABLE_INDICATOR or cpu.control(Setting.EFER) & EFER_LMA:
            return False
        space.stores.follow_waiting()
        if space.stores.wait:
            return False
        try:
            place = cpu.wrapped(descriptor_place(cpu.target(), selector) + _TYPE_BYTE)
            if not space.stores.is_descriptor(cpu.translate(place, Access.READ, user=False)):
                return False
            before = cpu.tr
            emulate_system.load_system_segment(cpu, selector, is_task=True)
        except (Raised, UnmappedAccess):
            return False
        space.stores.follow_descriptors()
        if cpu.tr != before:
            self._transfers.forget()
        return True
