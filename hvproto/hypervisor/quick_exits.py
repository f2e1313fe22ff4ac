"""The exits that a guest has thousands of, handled without taking its state over and giving it back.

A hidden page fault, CLI, PUSHF and POPF change next to nothing: the rest of the processor's state stays where it is.
What is done is what `Exits` does, event for event; wherever anything is out of the ordinary - breakpoints, single
step, virtual-8086 mode, prefixes, a segment with a base, user's handlers, stores that have to be followed - nothing is
done, and `Exits` decides. That costs some 60 us an exit, this a tenth of it, and a twentieth where nobody listens: then
it is done in the engine's run, and so are, then only, STI and what `quick_ports` knows of IN and OUT. The portable
engine always goes the plain way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import capstone

from hvproto import events
from hvproto.addresses import PAGE_MASK
from hvproto.hypervisor.emulate import popped
from hvproto.hypervisor.plan import Provider
from hvproto.hypervisor.quick_ports import LONGEST, QuickPorts
from hvproto.hypervisor.quick_transfers import KERNEL, QuickTransfers
from hvproto.hypervisor.region_form import Form
from hvproto.hypervisor.view import ADDRESS
from hvproto.hypervisor.virtual_cpu import VIRTUAL_FLAGS
from hvproto.processor.engine import EFLAGS_ID
from hvproto.processor.first_look import FirstLook
from hvproto.processor.native import NativeEngine
from hvproto.processor.paging import NX, P
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
_CLI, _STI, _PUSHF, _POPF, _IRET = 0xFA, 0xFB, 0x9C, 0x9D, 0xCF
_FIRST_FREE = 32
"""Vectors below it are the processor's own."""
_WRITE = 2
_FETCH_OR_RESERVED = 0x18
_KEPT = VIRTUAL_FLAGS & ~EFLAGS_RF
_WHOLE = 0xFFFF_FFFF
_TO_HALT = Form.cycles_to_halt(PAGE_FAULT)
"""Of the stubs of #PF and #GP, which are alike."""


class QuickExits:
    """Of one guest. ``enabled`` is for comparing it with the plain way."""

    def __init__(self, guest: MirroredGuest) -> None:
        self._guest = guest
        self._cpu = guest.cpu
        self._space = guest.space
        self._processor = guest.machine.processor
        self._ram = guest.machine.ram.view
        self._frame, self._frame_at = guest.space.region.place_of_frame()
        self._ring_3 = b""
        self._is_calm = self._is_plain = False
        self._level = 0
        self.count = 0
        engine = self._processor.engine
        self._engine = engine if isinstance(engine, NativeEngine) else None
        self.enabled = self._engine is not None
        if self._engine is not None:
            self._look = FirstLook(self._engine, self._answer)
            self._ports = QuickPorts(guest, self._engine)
            self._transfers = QuickTransfers(guest, self._engine, self._look)

    def enter(self) -> None:
        """The guest gets the processor."""
        if self._engine is not None:
            self._look.start()

    def leave(self) -> None:
        """... and somebody else gets it."""
        if self._engine is not None:
            self._look.stop()

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
        is_flat = not stack.base and stack.limit == _WHOLE and bool(stack.is_32bit)
        mode = cpu.decoder_mode
        self._is_plain = is_flat and mode == capstone.CS_MODE_32
        self._ports.is_16_bit = mode == capstone.CS_MODE_16
        self._level = cpu.cpl
        self._transfers.resuming()

    def _is_ordinary(self) -> bool:
        return self._is_calm and self.enabled and not self._guest.exit_policy.handlers and not self._space.has_stores

    def _answer(self) -> bool:
        """An event of the guest's is about to be delivered, in the engine's run. True if it needn't be: all is done.

        Whoever listens to exits hears of them between two runs.
        """
        policy = self._guest.exit_policy
        if not self._is_calm or not self.enabled or policy.handlers or self._guest.bus.wants(events.ExceptionTaken):
            return False
        look, cpu = self._look, self._cpu
        if look.eflags.value & EFLAGS_TF or look.in_shadow:
            return False
        vector = look.vector.value
        if look.is_software.value:
            hypervisors = policy.routes[vector] is Provider.HYPERVISOR
            if vector < _FIRST_FREE or not hypervisors or not self._transfers.reflect(vector, self._level):
                return False
            self._has_changed_to(KERNEL)
            look.now.value += Form.cycles_to_halt(vector)
        else:
            self._space.follow_deferred()
            if self._space.has_stores:
                return False
            before = look.now.value
            look.now.value = before + _TO_HALT
            if vector == PROTECTION and not look.error_code.value:
                eip = self._served_in_run(look.eip.value)
            else:
                eip = self._served(vector, look.error_code.value, look.eip.value, cpu.wrapped(look.cr2.value))
            if eip is None:
                look.now.value = before
                return False
            look.eip.value = eip
            cpu.eflags &= ~EFLAGS_RF
        cpu.set_shadow(False)
        self.count += 1
        return True

    def _has_changed_to(self, level: int) -> None:
        if level != self._level:
            self._level, self._ring_3 = level, self._transfers.raw

    def _served(self, vector: int, error: int, eip: int, linear: int) -> int | None:
        """Deal with an exception; returns where the guest goes on, or None with nothing done.

        ``linear`` is CR2.
        """
        if vector == PAGE_FAULT:
            if error & _FETCH_OR_RESERVED:
                return None
            if not self._space.mirror.touch(linear, write=bool(error & _WRITE), user=self._level == 3):
                return None
            self._tell(PAGE_FAULT, error, eip, "hidden from the mirror", linear, _TO_HALT)
            return eip
        if vector == PROTECTION and error == 0:
            cpu = self._cpu
            if self._opcode(eip) != _CLI or self._level > (cpu.eflags & EFLAGS_IOPL) >> 12:
                return None
            cpu.eflags &= ~EFLAGS_IF
            self._tell(PROTECTION, 0, eip, "cli", None, _TO_HALT)
            return eip + 1
        return None

    def _served_in_run(self, eip: int) -> int | None:
        """Deal with a #GP(0) that nobody is to hear of: CLI, STI and accesses to ports, which may have the run end.
        Returns where the guest goes on, or None with nothing done."""
        cpu = self._cpu
        code = self._code(eip)
        if not code or self._level > (cpu.eflags & EFLAGS_IOPL) >> 12:
            return None
        opcode = code[0]
        if opcode == _CLI:
            cpu.eflags &= ~EFLAGS_IF
            return eip + 1
        if opcode != _STI:
            length = self._ports.answer(code)
            return eip + length if length else None
        if not cpu.interrupts:
            if self._guest.board.interrupts.pending:
                return None
            cpu.eflags |= EFLAGS_IF
            self._look.hold_interrupts()
        return eip + 1

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
        went_on = self._served(vector, error, eip, cpu.wrapped(engine.cr2))
        if went_on is None:
            return False
        # What `VirtualCpu.load` takes over, as far as it stays there while the guest runs.
        cpu.eflags = cpu.eflags & _KEPT | eflags & ~VIRTUAL_FLAGS
        cpu.set_shadow(False)
        engine.back_to_ring_3(self._ring_3, went_on, esp, eflags & ~VIRTUAL_FLAGS | EFLAGS_IF)
        self.count += 1
        return True

    def trapped(self, eip: int) -> bool:
        """The guest is about to execute a planted instruction, and the engine is in its run.

        True if that is done, and the run goes on behind it.
        """
        engine, cpu, space = self._engine, self._cpu, self._space
        if engine is None or not self._is_plain or not self._is_ordinary():
            return False
        opcode = self._opcode(eip)
        if opcode not in (_PUSHF, _POPF, _IRET) or self._look.in_shadow:
            return False
        if opcode == _IRET:
            return self._return(engine, eip)
        eflags = engine.read_register(EFLAGS_ID)
        if eflags & EFLAGS_TF:
            return False
        flags = cpu.eflags & _KEPT | eflags & ~VIRTUAL_FLAGS
        if opcode == _PUSHF:
            esp = engine.stack_pointer - 4 & _WHOLE
            at = space.place(esp, 4, space.present_view, write=True)
            if at is None:
                return False
            self._ram[at : at + 4] = (flags & ~(EFLAGS_VM | EFLAGS_RF)).to_bytes(4, "little")
            self._tell(PROTECTION, 0, eip, "pushfd", None)
        else:
            esp = engine.stack_pointer & _WHOLE
            at = space.place(esp, 4, space.present_view)
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

    def _return(self, engine: NativeEngine, eip: int) -> bool:
        if self._level != KERNEL:
            return False
        went_on = self._transfers.iret()
        if went_on is None:
            return False
        self._tell(PROTECTION, 0, eip, "iretd", None)
        self._has_changed_to(self._cpu.cpl)
        self._cpu.set_shadow(False)
        engine.continue_at(went_on)
        self.count += 1
        return True

    def _opcode(self, eip: int) -> int:
        """The byte at EIP, which is its linear address; -1 where the mirror doesn't have it."""
        entry = self._space.present_view.get(eip)
        if not entry & P or entry & NX:
            return -1
        return self._ram[entry & ADDRESS | eip & PAGE_MASK]

    def _code(self, eip: int) -> bytes:
        """The bytes there that `QuickPorts` looks at; nothing where the mirror doesn't have them, or a page ends."""
        offset = eip & PAGE_MASK
        entry = self._space.present_view.get(eip)
        if not entry & P or entry & NX or offset + LONGEST > PAGE_MASK:
            return b""
        at = entry & ADDRESS | offset
        return bytes(self._ram[at : at + LONGEST])

    def _tell(self, vector: int, error: int, eip: int, detail: str, cr2: int | None, cycles: int = 0) -> None:
        bus = self._guest.bus
        if bus.wants(events.ExceptionTaken):
            number, now = self._guest.number, self._processor.now
            bus.emit(events.ExceptionTaken(now, vector, error, "handle", eip, cr2, detail, number, cycles))
