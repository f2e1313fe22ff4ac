"""Exits: what to do with each event that took the processor from a mirrored guest.

One switch on the vector; each case handles the event or reflects it to the guest's own handler.
Nothing else is possible: handle, reflect, or end the guest with a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import capstone

from hvproto import events
from hvproto.addresses import GVA, PAGE_MASK
from hvproto.errors import EXCEPTION_NAMES
from hvproto.hypervisor.code import loads_stack
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE
from hvproto.processor.exceptions import Event, Raised, Source, exception_source, load_descriptor
from hvproto.processor.opcodes import has_forbidden_lock
from hvproto.processor.paging import Access
from hvproto.processor.segments import RPL_MASK
from hvproto.processor.settings import EFLAGS_TF

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest

IDT_ERROR = 2
DEBUG = 1
INVALID_OPCODE = 6
PAGE_FAULT = 14
GENERAL_PROTECTION = 13
SELECTOR_FAULTS = (10, 11, 12)
BREAKPOINT, OVERFLOW = 3, 4


class Exits:
    """Handles the exits of one guest, which stands in a stub with its frame loaded."""

    def __init__(self, guest: MirroredGuest) -> None:
        self._guest = guest
        self._cpu = guest.cpu

    def handle(self) -> None:
        """The switch. Raises what ends the guest: Shutdown, OutOfMemory, NotBuilt."""
        vector = self._cpu.vector
        try:
            if vector == PAGE_FAULT:
                self._page_fault()
            elif vector == GENERAL_PROTECTION:
                self._general_protection()
            elif vector in SELECTOR_FAULTS:
                self._selector_fault()
            elif vector >= 32 or vector in (BREAKPOINT, OVERFLOW):
                self._software_interrupt(vector)
            else:
                self._reflect(vector, self._cpu.error_code if vector in VECTORS_WITH_ERROR_CODE else None)
        except Raised as raised:
            self._reflect(raised.vector, raised.error_code, raised.cr2)

    def interrupt(self, vector: int) -> None:
        """Deliver a virtual external interrupt."""
        cpu = self._cpu
        self._tell(vector, None, "reflect", "interrupt")
        cpu.deliver(Event(vector, Source.EXTERNAL, cpu.eip), cpu.eip)

    # -- the two routes ----------------------------------------------------------------------

    def _reflect(self, vector: int, error_code: int | None, cr2: int | None = None) -> None:
        cpu = self._cpu
        self._tell(vector, error_code, "reflect", EXCEPTION_NAMES.get(vector, ""), cr2)
        cpu.deliver(Event(vector, exception_source(vector), cpu.eip, error_code, cr2), cpu.eip)

    def _tell(self, vector: int, error_code: int | None, route: str, detail: str, cr2: int | None = None) -> None:
        guest = self._guest
        guest.bus.emit(
            events.ExceptionTaken(guest.machine.processor.now, vector, error_code, route, self._cpu.eip, cr2, detail)
        )

    # -- page faults -------------------------------------------------------------------------

    def _page_fault(self) -> None:
        guest, cpu = self._guest, self._cpu
        linear = guest.machine.processor.cr2
        access = guest.access_of(cpu.error_code)
        # The guest's own tables decide; if they refuse, this raises the guest's own page fault.
        cpu.translate(linear, access, user=cpu.cpl == 3)
        page = GVA(linear & ~PAGE_MASK)
        if access is Access.FETCH:
            guest.look_at_code(page)
        guest.mirror.sync_page(page)
        self._tell(PAGE_FAULT, cpu.error_code, "handle", "hidden from the mirror", linear)

    # -- protection faults -------------------------------------------------------------------

    def _instruction(self) -> capstone.CsInsn | None:
        cpu = self._cpu
        code = cpu.peek(cpu.code.base + cpu.eip & 0xFFFF_FFFF, 15)
        if has_forbidden_lock(code, wide=False):  # the engine executes it
            raise Raised(INVALID_OPCODE)
        return self._guest.decoder.decode(code)

    def _general_protection(self) -> None:
        error_code = self._cpu.error_code
        instruction = self._instruction()
        if error_code & IDT_ERROR and instruction is not None:
            # INT n of an architectural exception: the region's gates are closed, the guest's may be open.
            self._software(error_code >> 3, instruction.size)
        elif self._emulate(instruction):
            pass
        elif self._guest.descriptors.repair(error_code):
            self._tell(GENERAL_PROTECTION, error_code, "handle", "accessed bit of a descriptor")
        else:
            self._reflect(GENERAL_PROTECTION, error_code)

    def _selector_fault(self) -> None:
        cpu = self._cpu
        vector, error_code = cpu.vector, cpu.error_code
        if self._emulate(self._instruction()):
            return
        if self._guest.descriptors.repair(error_code):
            self._tell(vector, error_code, "handle", "accessed bit of a descriptor")
        else:
            # The region's GDTs lack system descriptors and what isn't present: the guest's table decides.
            self._reflect(*self._as_the_guest_has_it(vector, error_code))

    def _as_the_guest_has_it(self, vector: int, error_code: int) -> tuple[int, int]:
        """The fault that this selector gives with the guest's own descriptor."""
        if not error_code & ~RPL_MASK:
            return vector, error_code
        try:
            segment = load_descriptor(self._cpu, error_code & 0xFFFC)
        except Raised:
            return GENERAL_PROTECTION, error_code & ~RPL_MASK
        if segment.is_system or segment.present:
            return GENERAL_PROTECTION, error_code & ~RPL_MASK
        return vector, error_code & ~RPL_MASK

    def _emulate(self, instruction: capstone.CsInsn | None) -> bool:
        if instruction is None:
            return False
        self_eip = self._cpu.eip
        single_step = self._cpu.real_eflags & EFLAGS_TF
        emulator = self._guest.emulator
        done = emulator.execute(instruction)
        if done:
            guest = self._guest
            guest.bus.emit(
                events.ExceptionTaken(
                    guest.machine.processor.now, GENERAL_PROTECTION, self._cpu.error_code, "handle", self_eip,
                    None, instruction.mnemonic,
                )
            )  # fmt: skip
            # A load of SS holds the trap off for one more instruction, STI doesn't.
            if single_step and not guest.halted and not loads_stack(instruction):
                raise Raised(DEBUG)
        return done

    # -- software interrupts -----------------------------------------------------------------

    def _software_interrupt(self, vector: int) -> None:
        """INT n, INT3 or INTO through an open gate: EIP is already after it."""
        cpu = self._cpu
        length = 2
        if vector in (BREAKPOINT, OVERFLOW):
            last = cpu.peek(cpu.code.base + cpu.eip - 1 & 0xFFFF_FFFF, 1)
            length = 1 if last in (b"\xcc", b"\xce") else 2
        cpu.eip = cpu.eip - length & 0xFFFF_FFFF
        self._software(vector, length)

    def _software(self, vector: int, length: int) -> None:
        cpu = self._cpu
        eip = cpu.eip
        self._tell(vector, None, "reflect", "software interrupt")
        cpu.deliver(Event(vector, Source.SOFTWARE, eip + length & 0xFFFF_FFFF), eip)
