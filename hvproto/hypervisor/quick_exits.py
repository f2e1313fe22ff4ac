"""The exits that a guest has thousands of, handled without taking its state over and giving it back.

A hidden page fault, CLI, PUSHF and POPF change next to nothing: the rest of the processor's state stays where it is.
What is done is what `Exits` does, event for event; wherever anything is out of the ordinary - breakpoints, single
step, virtual-8086 mode, prefixes, a segment with a base, user's handlers, stores that have to be followed - nothing is
done, and `Exits` decides. That costs some 60 us an exit, this a tenth of it. The portable engine always goes that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import capstone

from hvproto import events
from hvproto.addresses import PAGE_MASK
from hvproto.hypervisor.emulate import popped
from hvproto.hypervisor.view import ADDRESS, MIRRORED
from hvproto.hypervisor.virtual_cpu import VIRTUAL_FLAGS
from hvproto.processor.engine import EFLAGS_ID
from hvproto.processor.native import NativeEngine
from hvproto.processor.paging import NX, P, W
from hvproto.processor.segments import SegmentRegister
from hvproto.processor.settings import (
    DR7_ENABLED,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
)

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest

PROTECTION, PAGE_FAULT = 13, 14
_CLI, _PUSHF, _POPF = 0xFA, 0x9C, 0x9D
_WRITE = 2
_FETCH_OR_RESERVED = 0x18
_KEPT = VIRTUAL_FLAGS & ~EFLAGS_RF
_WHOLE = 0xFFFF_FFFF
_SHOWN = P | MIRRORED


class QuickExits:
    """Of one guest. ``enabled`` is for comparing it with the plain way."""

    def __init__(self, guest: MirroredGuest) -> None:
        self._guest = guest
        self._cpu = guest.cpu
        self._space = guest.space
        self._processor = guest.machine.processor
        self._ram = guest.machine.ram.view
        engine = self._processor.engine
        self._engine = engine if isinstance(engine, NativeEngine) else None
        self._frame, self._frame_at = guest.space.region.place_of_frame()
        self._ring_3 = b""
        self._is_calm = self._is_plain = False
        self._level = 0
        self.enabled = self._engine is not None
        self.count = 0

    def resuming(self) -> None:
        """The processor has just been given the guest's state in full. What is known now, only another exit changes."""
        if self._engine is None:
            return
        guest, cpu, space = self._guest, self._cpu, self._space
        self._ring_3 = self._engine.ring_3_segments()
        code, stack = cpu.segment(SegmentRegister.CS), cpu.segment(SegmentRegister.SS)
        self._is_calm = not (
            guest.exits.breakpoints
            or cpu.debug_register(7) & DR7_ENABLED
            or cpu.by_paragraphs
            or code.base
            or space.region.layout.is_one_page  # its frame is elsewhere
        )
        self._is_plain = (
            cpu.decoder_mode == capstone.CS_MODE_32
            and not stack.base
            and stack.limit == _WHOLE
            and bool(stack.is_32bit)
        )
        self._level = cpu.cpl

    def _is_ordinary(self) -> bool:
        return self._is_calm and self.enabled and not self._guest.exit_policy.handlers and not self._space.has_stores

    def handle(self) -> bool:
        """The guest is in a stub's HLT. True if all is done, and the processor stands before its next instruction."""
        if self._is_calm and self.enabled:
            self._space.follow_deferred()
        if not self._is_ordinary():
            return False
        vector, error, eip, _, eflags, esp, _ = self._frame.unpack_from(self._ram, self._frame_at)
        cpu, engine = self._cpu, self._engine
        assert engine is not None
        if eflags & EFLAGS_TF:
            return False
        # What `VirtualCpu.load` takes over, as far as it stays there while the guest runs.
        flags = cpu.eflags & _KEPT | eflags & ~VIRTUAL_FLAGS
        if vector == PAGE_FAULT:
            if error & _FETCH_OR_RESERVED:
                return False
            linear = engine.cr2
            if not self._space.mirror.touch(linear, write=bool(error & _WRITE), user=self._level == 3):
                return False
            self._tell(PAGE_FAULT, error, eip, "hidden from the mirror", linear)
        elif vector == PROTECTION and error == 0:
            if self._opcode(eip) != _CLI or self._level > (flags & EFLAGS_IOPL) >> 12:
                return False
            flags &= ~EFLAGS_IF
            self._tell(PROTECTION, 0, eip, "cli", None)
            eip += 1
        else:
            return False
        cpu.eflags = flags
        cpu.set_shadow(False)
        engine.back_to_ring_3(self._ring_3, eip, esp, eflags & ~VIRTUAL_FLAGS | EFLAGS_IF)
        self.count += 1
        return True

    def trapped(self, eip: int) -> bool:
        """The guest is about to execute a planted instruction, and the engine is in its run.

        True if that is done, and the run goes on behind it.
        """
        engine, cpu = self._engine, self._cpu
        if engine is None or not self._is_plain or not self._is_ordinary():
            return False
        opcode = self._opcode(eip)
        if opcode not in (_PUSHF, _POPF) or engine.state().shadow:
            return False
        eflags = engine.read_register(EFLAGS_ID)
        if eflags & EFLAGS_TF:
            return False
        flags = cpu.eflags & _KEPT | eflags & ~VIRTUAL_FLAGS
        if opcode == _PUSHF:
            esp = engine.stack_pointer - 4 & _WHOLE
            at = self._place(esp, write=True)
            if at is None:
                return False
            self._ram[at : at + 4] = (flags & ~(EFLAGS_VM | EFLAGS_RF)).to_bytes(4, "little")
            self._tell(PROTECTION, 0, eip, "pushfd", None)
        else:
            esp = engine.stack_pointer & _WHOLE
            at = self._place(esp, write=False)
            if at is None:
                return False
            value = int.from_bytes(self._ram[at : at + 4], "little")
            if value & EFLAGS_TF:  # who pops TF isn't in a hurry
                return False
            flags = popped(flags, value, self._level, 4)
            engine.set_flags(flags & ~VIRTUAL_FLAGS | EFLAGS_IF)
            self._tell(PROTECTION, 0, eip, "popfd", None)
            esp = esp + 4 & _WHOLE
        cpu.eflags = flags
        cpu.set_shadow(False)
        engine.stack_pointer = esp
        engine.continue_at(eip + 1)
        self.count += 1
        return True

    def _opcode(self, eip: int) -> int:
        """The byte at EIP, which is its linear address; -1 where the mirror doesn't have it."""
        entry = self._space.present_view.get(eip)
        if not entry & P or entry & NX:
            return -1
        return self._ram[entry & ADDRESS | eip & PAGE_MASK]

    def _place(self, linear: int, *, write: bool) -> int | None:
        """Where in RAM four bytes lie that the guest may access now without any effect on its tables."""
        entry = self._space.present_view.get(linear)
        if entry & _SHOWN != _SHOWN or (write and not entry & W) or linear & PAGE_MASK > PAGE_MASK - 3:
            return None
        at: int = entry & ADDRESS | linear & PAGE_MASK
        if at >= len(self._ram) or (write and self._space.is_watched(at)):
            return None
        return at

    def _tell(self, vector: int, error: int, eip: int, detail: str, cr2: int | None) -> None:
        bus = self._guest.bus
        if bus.wants(events.ExceptionTaken):
            number = self._guest.number
            bus.emit(events.ExceptionTaken(self._processor.now, vector, error, "handle", eip, cr2, detail, number))
