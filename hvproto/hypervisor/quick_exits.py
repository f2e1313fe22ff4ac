"""The exits that a guest has thousands of, handled without taking its state over and giving it back.

A hidden page fault, CLI, PUSHF and POPF change next to nothing: the rest of the processor's state stays where it is.
What is done is what `Exits` does, event for event; wherever anything is out of the ordinary - breakpoints, single
step, virtual-8086 mode, prefixes, a segment with a base, user's handlers, stores that have to be followed - nothing is
done, and `Exits` decides. That costs 130 Y an exit (of an empty hook), or 200 with a trap; this a tenth of it, and 1 to
5 where nobody listens: then it is done in the engine's run, and so are, then only, STI, what `quick_ports` knows of
IN and OUT, and INT n and IRET (`quick_transfers`). Most of these, machine code decides by itself once it has been done
once, for a tenth of a Y (`unasked`). The portable engine always goes the plain way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import capstone

from hvproto import events
from hvproto.addresses import PAGE_MASK
from hvproto.hypervisor import quick_system
from hvproto.hypervisor.emulate import popped
from hvproto.hypervisor.load_guard import LOADS
from hvproto.hypervisor.quick_ports import LONGEST, STRING, QuickPorts
from hvproto.hypervisor.quick_system import QuickSystem
from hvproto.hypervisor.quick_transfers import KERNEL, USER, QuickTransfers
from hvproto.hypervisor.region import Region
from hvproto.hypervisor.region_form import Form
from hvproto.hypervisor.view import ADDRESS, View
from hvproto.hypervisor.virtual_cpu import VIRTUAL_FLAGS
from hvproto.processor.asking import NOT_ALLOWED, SOFTWARE
from hvproto.processor.engine import PendingException
from hvproto.processor.first_look import FirstLook
from hvproto.processor.instruction_count import REP
from hvproto.processor.known_transfers import KnownTransfers
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
from hvproto.processor.unasked import (
    CLI,
    DECIDES,
    ELSEWHERE,
    IN_PROGRAM,
    IRET,
    NEXT,
    OPENS,
    PASSES,
    POPF,
    PUSHF,
    REFUSED,
    STI,
    TWO_BYTES,
)

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest

PROTECTION, PAGE_FAULT = 13, 14
_FIRST_FREE = 32
"""Vectors below it are the processor's own."""
_WRITE = 2
_RESERVED, _FETCH_OR_RESERVED = 8, 0x18
_KEPT = VIRTUAL_FLAGS & ~EFLAGS_RF
_PUSHED = _KEPT & ~EFLAGS_VM
_WHOLE = 0xFFFF_FFFF
_TO_HALT = Form.cycles_to_halt(PAGE_FAULT)
"""Of the stubs of #PF and #GP, which are alike."""
_VECTOR = _OPCODE = 0xFF
_CLI_NOT_ALLOWED = NOT_ALLOWED | CLI
_CLOSED = ~(EFLAGS_IF | EFLAGS_RF)
_NAMES = {PUSHF: "pushfd", POPF: "popfd", IRET: "iretd"}
_LEVELS = KERNEL, USER
_WORD = struct.Struct("<I")


def _left(_pending: PendingException) -> bool:
    return False


class QuickExits:
    """Of one guest. ``enabled``, from the next plain exit on, is for comparing it with the plain way, ``decides`` for
    comparing what machine code decides by itself with the same asked about."""

    def __init__(self, guest: MirroredGuest) -> None:
        self._guest = guest
        self._cpu = guest.cpu
        self._space = guest.space
        self._stores, self._executed = guest.space.stores, guest.space.executed
        self._wants, self._listeners = guest.bus.wants, guest.bus.subscribers
        self._policy = guest.exit_policy
        self._interrupts = guest.board.interrupts
        self._processor = guest.machine.processor
        self._ram = guest.machine.ram.view
        self._frame, self._frame_at = guest.space.region.place_of_frame()
        self._ring_3 = b""
        self._is_calm = self._is_plain = False
        self._level = 0
        self._view: View
        self._place: tuple[Region, int] = guest.space.region, -1
        """The region, and where it was, when the processor was given the guest's state last."""
        self._addresses = 0
        """The bits of a linear address."""
        self._count = 0
        engine = self._processor.engine
        self._engine = engine if isinstance(engine, NativeEngine) else None
        self.enabled = self._engine is not None
        self.decides = True
        if self._engine is not None:
            known = KnownTransfers()
            self._look = FirstLook(
                self._engine,
                self._answer,
                self._trapped,
                self._decided,
                known,
                (Form.cycles_to_halt(_FIRST_FREE), _TO_HALT),
                (Form.instructions_to_halt(_FIRST_FREE), Form.instructions_to_halt(PAGE_FAULT)),
                ~(VIRTUAL_FLAGS | EFLAGS_VM | EFLAGS_RF) & _WHOLE,
            )
            self._ports = QuickPorts(guest, self._engine)
            self._transfers = QuickTransfers(guest, self._engine, self._look, known)
            self._system = QuickSystem(guest, self._engine, self._transfers)

    def enter(self) -> None:
        """The guest gets the processor."""
        if self._engine is not None:
            self._look.start()
            self._processor.on_exception = self.faulted

    def leave(self) -> None:
        """... and somebody else gets it."""
        if self._engine is not None:
            self._count = self.count
            self._look.stop()
            self._processor.on_exception = _left
            self._look.unasked_count.value = 0

    @property
    def count(self) -> int:
        """How many there were."""
        is_asked = self._engine is not None and self._look.is_asked
        return self._count + (self._look.unasked_count.value if is_asked else 0)

    def resuming(self) -> None:
        """The processor has just been given the guest's state in full. What is known now, only another exit changes."""
        if self._engine is None:
            return
        guest, cpu, space = self._guest, self._cpu, self._space
        self._ring_3 = self._engine.ring_3_segments()
        code, stack = cpu.segment(SegmentRegister.CS), cpu.segment(SegmentRegister.SS)
        self._is_calm = self.enabled and not (
            guest.exits.breakpoints
            or cpu.debug_register(7) & DR7_ENABLED
            or cpu.by_paragraphs
            or code.base
            or space.region.layout.is_one_page  # its frame is elsewhere
        )
        is_flat = not stack.base and stack.limit == _WHOLE and bool(stack.is_32bit)
        mode = cpu.decoder_mode
        self._is_plain = self._is_calm and is_flat and mode == capstone.CS_MODE_32
        self._ports.is_16_bit = mode == capstone.CS_MODE_16
        self._place = space.region, space.region.base
        self._addresses = cpu.wrapped(-1)
        self._level = cpu.cpl
        self._view = space.present_view
        self._transfers.resuming()

    def going_on(self) -> None:
        """The processor goes on with what it has. If the region has moved or shrunk, all exits are plain until the
        guest's state is given in full: what is known of either level is of where it was."""
        region = self._space.region
        if (region, region.base) != self._place:
            self._is_calm = self._is_plain = False

    def _hears_exits(self) -> bool:
        return bool(self._listeners) and self._wants(events.ExceptionTaken)

    def _is_ordinary(self) -> bool:
        return self._is_calm and not self._policy.handlers and not self._stores.wait

    def _answer(self, what: int, error: int, eip: int, esp: int) -> int:
        """An event of the guest's is about to be delivered, in the engine's run: what `FirstLook` asks.

        Whoever listens to exits hears of them between two runs.
        """
        space = self._space
        if (
            what == PAGE_FAULT
            and self._look.guest.value  # machine code decides, so nothing is out of the ordinary: each look counts here
            and not (error & _FETCH_OR_RESERVED or self._stores.deferred_count.value or self._executed.marked)
            and space.mirror.touch(
                self._look.cr2.value & self._addresses, write=bool(error & _WRITE), user=self._level == USER
            )
        ):
            self._count += 1
            self._cpu.all_eflags &= ~EFLAGS_RF
            space.say_hidden(self._look.cr2.value & self._addresses)
            if self._transfers.changes != space.mirror.kernel.changes:
                self._decide()
            return ELSEWHERE
        if not self._is_calm or self._policy.handlers:
            return REFUSED
        if self._hears_exits():
            return REFUSED
        if what & SOFTWARE:
            vector = what & _VECTOR
            if vector < _FIRST_FREE or vector in self._policy.routes.changed or space.monitor.records:
                return REFUSED
            if not self._transfers.reflect(vector, self._level, eip, esp):
                return REFUSED
            if self._level != KERNEL:
                self._change_level(KERNEL)
            self._done()
            return ELSEWHERE
        if self._stores.deferred_count.value or space.monitor.records or self._executed.marked:
            self._stores.follow_deferred()
            if self._stores.press:
                return REFUSED
        if what == PAGE_FAULT:
            return self._shows(self._look.cr2.value, error)
        if what == _CLI_NOT_ALLOWED:
            cpu = self._cpu
            eflags = cpu.all_eflags
            if self._level > (eflags & EFLAGS_IOPL) >> 12:
                return REFUSED
            cpu.all_eflags = eflags & _CLOSED
            self._done()
            return NEXT
        if not what & NOT_ALLOWED:
            return REFUSED
        went_on = self._served_in_run(what & _OPCODE, eip)
        if went_on is None:
            return REFUSED
        self._look.eip.value = went_on
        self._cpu.all_eflags &= ~EFLAGS_RF
        self._done()
        return ELSEWHERE

    def faulted(self, pending: PendingException) -> bool:
        """`Processor.on_exception`: a page fault may be the mirror's alone, too, where an instruction reads and writes,
        and the engine has another error code."""
        processor = self._processor
        if (
            pending.vector != PAGE_FAULT
            or pending.software
            or not self._is_calm
            or self._policy.handlers
            or self._hears_exits()
            or processor.cpl != USER
            or processor.in_interrupt_shadow
            or processor.eflags & EFLAGS_TF
        ):
            return False
        self._stores.follow_deferred()
        if self._stores.press or self._shows(processor.cr2, pending.error_code or 0) == REFUSED:
            return False
        processor.engine.now += _TO_HALT
        if processor.counts_instructions:
            processor.engine.instructions += Form.instructions_to_halt(PAGE_FAULT)
        return True

    def interrupt(self, vector: int) -> bool:
        """Deliver an external interrupt to the guest, which stands between two instructions with its state in the
        processor, and takes it now; False, and nothing done, if that state has to be taken over."""
        processor, engine = self._processor, self._engine
        if (
            engine is None
            or not self._is_plain
            or not self._is_ordinary()
            or self._hears_exits()
            or self._guest.has_entry_handlers
            or self._level not in _LEVELS
        ):
            return False
        look = self._look
        look.flags.value = processor.eflags
        if not self._transfers.reflect(vector, self._level, processor.eip, processor.esp, external=True):
            return False
        if look.side.value:
            look.side.value = 0
            engine.load_ring_3_segments(self._transfers.raw)
            engine.summarize()
            self._space.load_view()
            self._change_level(KERNEL)
        return True

    def _shows(self, linear: int, error: int) -> int:
        """A page fault, in the engine's run: it may be the mirror's alone."""
        space = self._space
        linear &= self._addresses
        if error & _FETCH_OR_RESERVED:
            if error & _RESERVED or not self._executed.show(linear, user=self._level == USER):
                return REFUSED
        elif not space.mirror.touch(linear, write=bool(error & _WRITE), user=self._level == USER):
            return REFUSED
        self._cpu.all_eflags &= ~EFLAGS_RF
        if self._look.guest.value and self._transfers.changes == space.mirror.kernel.changes:
            self._count += 1  # what machine code may decide is what it was
        else:
            self._done()
        return ELSEWHERE

    def _done(self) -> None:
        """The run goes on. If nobody listens, machine code needn't ask about what is known now."""
        self._count += 1
        if self._is_plain and self.decides and not self._listeners:
            self._decide()

    def _decide(self) -> None:
        """Have machine code decide what it can, until anything else calls Python."""
        cpu, level = self._cpu, self._level
        if cpu.nmi_blocked or level not in _LEVELS or self._space.monitor.records or self._executed.marked:
            self._look.guest.value = 0  # what it said before may be wrong by now
            return
        if self._policy.routes.changed:
            self._transfers.forget()
        else:
            self._transfers.check()
        may = DECIDES | (IN_PROGRAM if level == USER else 0)
        if not self._interrupts.pending:
            may |= OPENS
        self._look.guest.value = cpu.all_eflags & _PUSHED | may

    def _decided(self) -> None:
        """Machine code has decided something: what the guest is now, as far as that changes it."""
        cpu, guest = self._cpu, self._look.guest.value
        cpu.all_eflags = cpu.all_eflags & ~(_PUSHED | EFLAGS_RF) | guest & _PUSHED
        level = USER if guest & IN_PROGRAM else KERNEL
        if level != self._level:
            self._transfers.is_at(level)
            self._change_level(level)

    def _change_level(self, level: int) -> None:
        self._level, self._ring_3 = level, self._transfers.raw
        self._view = self._space.present_view

    def _served(self, vector: int, error: int, eip: int, linear: int) -> int | None:
        """Deal with an exception; returns where the guest goes on, or None with nothing done.

        ``linear`` is CR2.
        """
        if vector == PAGE_FAULT:
            if error & _FETCH_OR_RESERVED:
                return None
            if not self._space.mirror.touch(linear, write=bool(error & _WRITE), user=self._level == 3):
                return None
            if self._listeners:
                self._tell(PAGE_FAULT, error, eip, "hidden from the mirror", linear, _TO_HALT)
            return eip
        if vector == PROTECTION and error == 0:
            cpu = self._cpu
            if self._opcode(eip) != CLI or self._level > (cpu.eflags & EFLAGS_IOPL) >> 12:
                return None
            cpu.eflags &= ~EFLAGS_IF
            self._tell(PROTECTION, 0, eip, "cli", None, _TO_HALT)
            return eip + 1
        return None

    def _served_in_run(self, opcode: int, eip: int) -> int | None:
        """Deal with a #GP(0) that nobody is to hear of: STI, LTR, MOV to CR3, and accesses to ports, which may have
        the run end.
        Returns where the guest goes on, or None with nothing done."""
        cpu = self._cpu
        if self._level > (cpu.eflags & EFLAGS_IOPL) >> 12:
            return None
        if opcode == TWO_BYTES:
            is_kernel = self._is_plain and self._level == KERNEL and not self._guest.has_entry_handlers
            if not is_kernel or not self._system.answer(self._code(eip)):
                return None
            self._change_level(KERNEL)
            return eip + quick_system.LENGTH
        if opcode == REP:
            is_string = self._is_plain and self._ports.string(self._code(eip), self._processor.eflags)
            return eip + STRING if is_string else None
        if opcode != STI:
            code = self._code(eip)
            length = self._ports.answer(code) if code else 0
            return eip + length if length else None
        if not cpu.interrupts:
            if self._interrupts.pending:  # it is taken behind the next instruction
                self._processor.limit_run(self._processor.now + 1)
            cpu.eflags |= EFLAGS_IF
            self._look.hold_interrupts()
        return eip + 1

    def handle(self) -> bool:
        """The guest is in a stub's HLT. True if all is done, and the processor stands before its next instruction."""
        if self._is_calm:
            self._stores.follow_deferred()
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
        self._processor.set_shadow(vector == PAGE_FAULT and engine.was_in_shadow)
        self._count += 1
        return True

    def _trapped(self, opcode: int, eip: int, esp: int, eflags: int) -> int:
        """The guest is about to execute a planted instruction, in the engine's run: what `FirstLook` asks.

        In code of 32 bits, each PUSHF, POPF and IRET is planted.
        """
        space = self._space
        if opcode in LOADS:
            self._guest.guard.passed = 0
            if not self._is_calm or self._guest.is_trap(eip):
                return REFUSED
            if self._level == KERNEL:
                self._transfers.known.add_open(self._guest.guard.passed)
            return PASSES
        if not self._is_plain or self._policy.handlers:
            return REFUSED
        if self._stores.deferred_count.value or space.monitor.records or self._executed.marked:
            self._stores.follow_deferred()
            if self._stores.press:
                return REFUSED
        if opcode == PUSHF:
            done = self._push_flags(esp - 4 & _WHOLE, eflags)
        elif opcode == POPF:
            done = self._pop_flags(esp, eflags)
        elif opcode == IRET and self._level == KERNEL and not space.monitor.records:
            done = self._transfers.iret(esp, eflags)
            if self._look.side.value:
                self._change_level(USER)
        elif opcode == REP and not self._hears_exits() and self._level == KERNEL:
            done = ELSEWHERE if self._ports.string(self._code(eip), eflags) else REFUSED
            self._look.eip.value = eip + STRING if done else eip
        else:
            return REFUSED
        if done == REFUSED:
            return REFUSED
        if self._listeners and opcode != REP:
            self._tell(PROTECTION, 0, eip, _NAMES[opcode], None)
        self._done()
        return done

    def _push_flags(self, esp: int, eflags: int) -> int:
        at = self._transfers.reach(esp, 4, self._view, True)
        if at < 0:
            return REFUSED
        cpu = self._cpu
        cpu.all_eflags = flags = cpu.all_eflags & _KEPT | eflags & ~VIRTUAL_FLAGS
        _WORD.pack_into(self._ram, at, flags & ~(EFLAGS_VM | EFLAGS_RF))
        self._look.esp.value = esp
        return NEXT

    def _pop_flags(self, esp: int, eflags: int) -> int:
        at = self._transfers.reach(esp, 4, self._view, False)
        if at < 0:
            return REFUSED
        value: int = _WORD.unpack_from(self._ram, at)[0]
        if value & EFLAGS_TF:  # who pops TF isn't in a hurry
            return REFUSED
        cpu, look = self._cpu, self._look
        before = cpu.all_eflags
        flags = popped(before & _KEPT | eflags & ~VIRTUAL_FLAGS, value, self._level, 4)
        if flags & ~before & EFLAGS_IF and self._interrupts.pending:
            return REFUSED
        cpu.all_eflags = flags
        look.flags.value = flags & ~VIRTUAL_FLAGS | EFLAGS_IF
        look.esp.value = esp + 4 & _WHOLE
        return NEXT

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
