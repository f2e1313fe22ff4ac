"""Exits: what to do with each event that took the processor from a mirrored guest.

One switch on the vector; each case handles the event or reflects it to the guest's own handler.
Nothing else is possible: handle, reflect, or end the guest with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from capstone import x86_const as cs

from hvproto import events
from hvproto.addresses import GVA, PAGE_MASK
from hvproto.errors import EXCEPTION_NAMES
from hvproto.hypervisor import port_io
from hvproto.hypervisor.sensitive import IRETS, LONGEST_INSTRUCTION, STRING_OUTPUTS, loads_stack
from hvproto.processor.data_breakpoints import DataBreakpoints
from hvproto.processor.engine import VECTORS_WITH_ERROR_CODE, PendingException, UnmappedAccess
from hvproto.processor.exceptions import Event, Raised, exception_source, load_descriptor
from hvproto.processor.instruction import Instruction
from hvproto.processor.opcodes import has_forbidden_lock
from hvproto.processor.paging import Access
from hvproto.processor.segments import RPL_MASK
from hvproto.processor.settings import DR6_BREAKPOINTS, DR6_BS, EFLAGS_IOPL, EFLAGS_RF, EFLAGS_TF, EFLAGS_VM
from hvproto.processor.take_event import take, take_exception, take_interrupt

if TYPE_CHECKING:
    from hvproto.hypervisor.mirrored import MirroredGuest

IDT_ERROR = 2
DEBUG, NMI = 1, 2
INVALID_OPCODE = 6
PAGE_FAULT = 14
GENERAL_PROTECTION = 13
SELECTOR_FAULTS = (10, 11, 12)
BREAKPOINT, OVERFLOW = 3, 4
_ONE_BYTE = (b"\xcc", b"\xce")
"""INT3 and INTO."""
FAULTING_PORTS = STRING_OUTPUTS | {cs.X86_INS_IN, cs.X86_INS_OUT}


class Exits:
    """Handles the exits of one guest, whose state its virtual processor has taken over."""

    def __init__(self, guest: MirroredGuest) -> None:
        self._guest = guest
        self._cpu = guest.cpu
        self.breakpoints = DataBreakpoints()
        """The guest's, for instructions that are emulated; for all others the real processor has them."""
        self.cycles = 0
        """What the region's stub has taken for the exit that came in last, until an event has told it."""
        self.hand_over: Callable[[int, int | None, int | None, int], bool] | None = None
        """Asked before an event of the guest's own is reflected (vector, error code, address, length of INT n or 0):
        True if somebody else has taken it."""

    def handle(self, vector: int, error_code: int) -> None:
        """The switch. Raises what ends the guest: Shutdown, UnmappedAccess."""
        try:
            if vector == PAGE_FAULT:
                self._page_fault(error_code)
            elif vector == GENERAL_PROTECTION:
                self._general_protection(error_code)
            elif vector in SELECTOR_FAULTS:
                self._selector_fault(vector, error_code)
            elif vector >= 32 or vector in (BREAKPOINT, OVERFLOW):
                self._software_interrupt(vector)
            elif vector == DEBUG:
                self._debug_exception()
            else:
                self._reflect(vector, error_code if vector in VECTORS_WITH_ERROR_CODE else None)
        except Raised as raised:
            self._reflect(raised.vector, raised.error_code, raised.cr2)

    def trapped(self) -> None:
        """The guest stands before a sensitive instruction that wouldn't have trapped by itself."""
        try:
            if not self._emulate(self.instruction(), 0):
                raise Raised(INVALID_OPCODE)
        except Raised as raised:
            self._reflect(raised.vector, raised.error_code, raised.cr2)

    def faults_by_itself(self) -> bool:
        """Whether the guest stands before an instruction that traps only since this engine lets all ports be used.

        It goes by its #GP all the same: the events of a run don't depend on the engine.
        """
        try:
            instruction = self.instruction()
        except Raised:
            return False
        return instruction is not None and instruction.id in FAULTING_PORTS

    def interrupt(self, vector: int) -> None:
        """Deliver a virtual external interrupt."""
        self.cycles = 0
        self._tell(vector, None, "reflect", "interrupt")
        take_interrupt(self._cpu, vector)

    def nmi(self) -> None:
        """Deliver a virtual NMI; others wait for the guest's next IRET."""
        self.cycles = 0
        self._tell(NMI, None, "reflect", "NMI")
        self._cpu.block_nmi()
        take_interrupt(self._cpu, NMI)

    # -- the two routes ----------------------------------------------------------------------

    def _reflect(self, vector: int, error_code: int | None, cr2: int | None = None) -> None:
        if self.hand_over is None or not self.hand_over(vector, error_code, cr2, 0):
            self.deliver(vector, error_code, cr2)

    def deliver(self, vector: int, error_code: int | None, cr2: int | None = None) -> None:
        """Have the guest's own handler called, for an exception at its EIP. Raises Shutdown, UnmappedAccess."""
        cpu = self._cpu
        self._tell(vector, error_code, "reflect", EXCEPTION_NAMES.get(vector, ""), cr2)
        take(cpu, Event(vector, exception_source(vector), cpu.eip, error_code, cr2), cpu.eip)

    def _tell(self, vector: int, error_code: int | None, route: str, detail: str, cr2: int | None = None) -> None:
        guest = self._guest
        if not guest.bus.wants(events.ExceptionTaken):
            return
        guest.bus.emit(
            events.ExceptionTaken(
                guest.machine.processor.now,
                vector,
                error_code,
                route,
                self._cpu.eip,
                cr2,
                detail,
                guest.number,
                self.told_cycles(),
            )
        )

    def told_cycles(self) -> int:
        """The cycles of this exit for its first event; the second one of the same exit has none."""
        cycles, self.cycles = self.cycles, 0
        return cycles

    # -- page faults -------------------------------------------------------------------------

    def _page_fault(self, error_code: int) -> None:
        guest, cpu = self._guest, self._cpu
        linear = cpu.wrapped(guest.machine.processor.cr2)
        access = _access_of(error_code)
        # The guest's own tables decide; if they refuse, this raises the guest's own page fault.
        try:
            cpu.translate(linear, access, user=cpu.cpl == 3)
        except UnmappedAccess as nowhere:
            if access is Access.FETCH or not guest.open_window(nowhere.physical):
                raise
        page = GVA(linear & ~PAGE_MASK)
        if access is Access.FETCH:
            guest.space.executed.look_at(page)
        guest.space.show(page)
        cpu.set_shadow(guest.machine.processor.engine.was_in_shadow)  # the instruction is yet to come
        self._tell(PAGE_FAULT, error_code, "handle", "hidden from the mirror", linear)

    # -- protection faults -------------------------------------------------------------------

    def instruction(self) -> Instruction | None:
        """The instruction at the guest's EIP; None where there is none. Raises `Raised` for one that can't be."""
        cpu = self._cpu
        code = cpu.peek_some(cpu.code_address, LONGEST_INSTRUCTION)
        if has_forbidden_lock(code, wide=cpu.code64):  # the engine executes it
            raise Raised(INVALID_OPCODE)
        decoded = self._guest.decoder.decode(code, cpu.decoder_mode)
        return None if decoded is None else Instruction(cpu, decoded)

    def _general_protection(self, error_code: int) -> None:
        instruction = self.instruction()
        if error_code & IDT_ERROR and instruction is not None:
            # INT n that the region's gates are closed to, or have none for; the guest's may be open.
            self._software(error_code >> 3, instruction.size)
        elif not self._emulate(instruction, error_code):
            self._reflect(GENERAL_PROTECTION, error_code)

    def _selector_fault(self, vector: int, error_code: int) -> None:
        if not self._emulate(self.instruction(), error_code):
            # The region's GDTs lack system descriptors and what isn't present: the guest's table decides.
            self._reflect(*self._as_the_guest_has_it(vector, error_code))

    def _as_the_guest_has_it(self, vector: int, error_code: int) -> tuple[int, int]:
        """The fault that this selector gives with the guest's own descriptor."""
        if not error_code & ~RPL_MASK:
            return vector, error_code
        try:
            segment = load_descriptor(self._cpu.target(), error_code & 0xFFFC)
        except Raised:
            return GENERAL_PROTECTION, error_code & ~RPL_MASK
        if segment.is_system or segment.present:
            return GENERAL_PROTECTION, error_code & ~RPL_MASK
        return vector, error_code & ~RPL_MASK

    def _emulate(self, instruction: Instruction | None, error_code: int) -> bool:
        if instruction is None:
            return False
        guest, cpu = self._guest, self._cpu
        eip, single_step = cpu.eip, cpu.eflags & EFLAGS_TF
        if cpu.in_interrupt_shadow:
            cpu.set_shadow(False)  # it ends with this instruction
        hits = self.breakpoints.hits(cpu, instruction) if self.breakpoints else 0
        hits |= port_io.breakpoints_hit(cpu, instruction)
        done = guest.emulator.execute(instruction)
        if done:
            if instruction.id not in IRETS:
                cpu.eflags &= ~EFLAGS_RF
            if guest.bus.wants(events.ExceptionTaken):
                guest.bus.emit(
                    events.ExceptionTaken(
                        guest.machine.processor.now, GENERAL_PROTECTION, error_code, "handle", eip, None,
                        instruction.mnemonic, guest.number, self.told_cycles(),
                    )
                )  # fmt: skip
            # A load of SS holds the trap off for one more instruction, STI doesn't.
            steps = single_step and not guest.halted and not loads_stack(instruction.decoded)
            if steps or hits:
                seen = cpu.debug_register(6) & ~DR6_BREAKPOINTS | hits if hits else cpu.debug_register(6)
                cpu.set_debug_register(6, seen | (DR6_BS if steps else 0))
                raise Raised(DEBUG)
        return done

    # -- debug exceptions --------------------------------------------------------------------

    def _debug_exception(self) -> None:
        """The real processor's DR6 says why; the guest's gets that."""
        real = self._guest.machine.processor
        self._cpu.set_debug_register(6, real.debug_register(6))
        self._reflect(DEBUG, None)

    # -- software interrupts -----------------------------------------------------------------

    def _software_interrupt(self, vector: int) -> None:
        """INT n, INT3 or INTO through an open gate: EIP is already after it."""
        length = self.length_behind(vector)
        self._cpu.eip -= length
        self._software(vector, length)

    def length_behind(self, vector: int) -> int:
        """Of the INT n, INT3 or INTO that the guest stands behind, in bytes."""
        cpu = self._cpu
        short = vector in (BREAKPOINT, OVERFLOW) and cpu.peek_some(cpu.wrapped(cpu.code_address - 1), 1) in _ONE_BYTE
        return 1 if short else 2

    def _software(self, vector: int, length: int) -> None:
        cpu = self._cpu
        if length > 1 and cpu.eflags & EFLAGS_VM and cpu.eflags & EFLAGS_IOPL != EFLAGS_IOPL:
            raise Raised(GENERAL_PROTECTION, 0)  # INT n, but neither INT3 nor INTO (SDM vol. 3, 20.2.8)
        if self.hand_over is None or not self.hand_over(vector, None, None, length):
            self.deliver_software(vector, length)

    def deliver_software(self, vector: int, length: int) -> None:
        """Have the guest's own handler called for the INT n of so many bytes at its EIP."""
        cpu = self._cpu
        self._tell(vector, None, "reflect", "software interrupt")
        take_exception(cpu, PendingException(vector, None, software=True, length=length))


def _access_of(error_code: int) -> Access:
    """What the processor's page-fault error code says was attempted."""
    if error_code & 0x10:
        return Access.FETCH
    return Access.WRITE if error_code & 2 else Access.READ
