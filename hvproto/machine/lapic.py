"""The local APIC of the one processor, in xAPIC mode (Intel SDM vol. 3, chapter 10, order no. 325384).

It is a page of registers at 0xfee00000, one every 16 bytes, each 32 bits wide. What isn't here: other processors (an
IPI to anybody else goes nowhere), x2APIC, SMIs, and the reset that an INIT to oneself would be.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from hvproto.machine.clock import Clock
from hvproto.machine.complaints import Complain, ignore
from hvproto.machine.lapic_lvt import ERROR, FIXED, LOWEST, MASKED, NMI, TIMER, LocalVectorTable
from hvproto.machine.lapic_messages import Addressing
from hvproto.machine.lapic_timer import ApicTimer
from hvproto.machine.lapic_vectors import Vectors

DEFAULT_BASE = 0xFEE0_0000
PAGE_SIZE = 0x1000
VERSION = 0x0005_0014
"""A Pentium 4's: xAPIC, LVT entries 0 to 5, the broadcast of EOIs can't be suppressed."""


class Register(IntEnum):
    """Offsets into the page; the entries of the LVT are in `lapic_lvt`."""

    ID, VERSION, TPR, APR, PPR, EOI, REMOTE_READ = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xC0
    LDR, DFR, SVR, ISR, TMR, IRR, ESR = 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
    ICR, ICR_HIGH, INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x300, 0x310, 0x380, 0x390, 0x3E0


_SOFTWARE_ENABLE = 1 << 8
_ERROR_SENT_VECTOR, _ERROR_RECEIVED_VECTOR, _ERROR_REGISTER = 1 << 5, 1 << 6, 1 << 7
_ERRORS = {
    _ERROR_SENT_VECTOR: "an interrupt was sent with a vector below 16",
    _ERROR_RECEIVED_VECTOR: "an interrupt came with a vector below 16",
    _ERROR_REGISTER: "there is no such register",
}
_FIRST_LEGAL_VECTOR = 16
_BASE_BSP, _BASE_ENABLE = 1 << 8, 1 << 11
_BASE_AFTER_RESET = DEFAULT_BASE | _BASE_BSP | _BASE_ENABLE
_BASE_RESERVED = 0x6FF  # bit 10 would be x2APIC


def _ignore(vector: int = 0) -> None:
    pass


class LocalApic:
    """Registers, priorities and delivery.

    ``on_interrupt`` is called whenever `pending`, `enabled` or `takes_ext_int` may have changed, ``on_nmi`` for every
    NMI, and ``on_eoi`` with the vector as the service of a level triggered interrupt ends.
    """

    def __init__(
        self,
        clock: Clock,
        on_interrupt: Callable[[], None] = _ignore,
        on_nmi: Callable[[], None] = _ignore,
        on_eoi: Callable[[int], None] = _ignore,
        *,
        apic_id: int = 0,
    ) -> None:
        self.on_interrupt, self.on_nmi, self.on_eoi = on_interrupt, on_nmi, on_eoi
        self.on_identity: Callable[[int], None] = _ignore
        """Gets the ID register whenever it changes: kernels read it all the time, to know where they are."""
        self._initial_id = apic_id
        self.complain: Complain = ignore
        self._base = _BASE_AFTER_RESET
        self._lvt = LocalVectorTable(self.accept, on_nmi)
        self.timer = ApicTimer(clock, lambda: self._lvt.trigger(TIMER))
        self._reset()

    def reset(self) -> None:
        """Back to the state after power-up: enabled in IA32_APIC_BASE, disabled by SVR, every LVT entry masked."""
        self._base = _BASE_AFTER_RESET
        self._reset()
        self.on_interrupt()

    def _reset(self) -> None:
        self._vectors = Vectors()
        self._pending: int | None = None
        self._addressing = Addressing(self._initial_id)
        self.on_identity(self._addressing.identity)
        self._spurious = 0xFF
        self._errors = self._errors_shown = 0
        self._lvt.reset()
        self.timer.reset()

    # -- modes ------------------------------------------------------------------------------------------------------

    @property
    def initial_id(self) -> int:
        """Its identification after reset, which CPUID tells for ever."""
        return self._initial_id

    @property
    def present(self) -> bool:
        """Whether its page answers and CPUID shows it: the global enable in IA32_APIC_BASE."""
        return bool(self._base & _BASE_ENABLE)

    @property
    def enabled(self) -> bool:
        """Whether it accepts interrupts: both IA32_APIC_BASE and SVR let it."""
        return self.present and bool(self._spurious & _SOFTWARE_ENABLE)

    @property
    def takes_ext_int(self) -> bool:
        """Whether LINT0 passes the 8259's interrupts on, with the 8259's vectors (virtual wire mode)."""
        return self._lvt.takes_ext_int

    @property
    def base(self) -> int:
        """The physical address of its page."""
        return self._base & ~0xFFF

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE (MSR 0x1b): the base from bit 12 on, the global enable (bit 11), boot processor (bit 8).

        Setting it raises ValueError where a processor has #GP: for reserved bits, x2APIC, an address beyond 2^36.
        Clearing the enable loses all state.
        """
        return self._base

    @apic_base.setter
    def apic_base(self, value: int) -> None:
        if value & _BASE_RESERVED or value >> 36:
            raise ValueError(f"IA32_APIC_BASE can't be {value:#x}")
        self._base = value
        if not self.present:
            self._reset()
        self.on_interrupt()

    # -- interrupts to the processor --------------------------------------------------------------------------------

    def accept(self, vector: int, level: bool) -> bool:
        """A fixed interrupt for this processor arrives; False if it isn't taken (disabled, or a vector below 16)."""
        if not self.enabled:
            return False
        if vector < _FIRST_LEGAL_VECTOR:
            self._error(_ERROR_RECEIVED_VECTOR)
            return False
        self._vectors.request(vector, level)
        self._settle()
        return True

    def pending(self) -> int | None:
        """The highest requested vector if its class (``vector >> 4``) exceeds that of PPR, else None."""
        return self._pending

    def acknowledge(self) -> int:
        """The processor takes an interrupt: its vector, which is in service from now on.

        The spurious vector if there is none; that isn't in service and needs no EOI.
        """
        vector = self._pending
        if vector is None:
            return self._spurious & 0xFF
        self._vectors.take(vector)
        self._settle()
        return vector

    @property
    def task_priority(self) -> int:
        """TPR, 0 to 255; CR8 is its upper half."""
        return self._vectors.task_priority

    @task_priority.setter
    def task_priority(self, value: int) -> None:
        self._vectors.task_priority = value & 0xFF
        self._settle()

    def set_pin(self, number: int, asserted: bool) -> None:
        """LINT0 (0) or LINT1 (1). The 8259 behind LINT0 is asked by whoever sees `takes_ext_int`, not from here."""
        rose = self._lvt.set_pin(number, asserted)
        if rose and number == 1 and not self.present:
            self.on_nmi()  # without an APIC, the pin is the processor's own

    def _settle(self) -> None:
        pending = self._vectors.next()
        if pending != self._pending:
            self._pending = pending
            self.on_interrupt()

    def _end_of_interrupt(self) -> None:
        ended = self._vectors.end()
        if ended is not None:
            vector, level = ended
            if level:
                self._lvt.end_of_interrupt(vector)
                self.on_eoi(vector)
            self._settle()

    def _error(self, error: int) -> None:
        """Note it for ESR. The interrupt comes for the first one only, until a write to ESR rearms it."""
        self.complain(_ERRORS[error])
        first = not self._errors
        self._errors |= error
        if first:
            self._lvt.trigger(ERROR)

    # -- messages between processors --------------------------------------------------------------------------------

    def matches(self, destination: int, logical: bool) -> bool:
        """Whether a message for ``destination`` (0 to 255) concerns this processor (SDM 10.6.2)."""
        return self._addressing.matches(destination, logical)

    def _send(self) -> None:
        """The write to ICR. Every message is an edge but the de-assertion of INIT, which isn't for us."""
        vector, mode = self._addressing.command & 0xFF, self._addressing.command >> 8 & 7
        for_us = self._addressing.commands_itself()
        if mode in (FIXED, LOWEST):
            if vector < _FIRST_LEGAL_VECTOR:
                self._error(_ERROR_SENT_VECTOR)
            elif for_us:
                self.accept(vector, False)
        elif mode == NMI and for_us:
            self.on_nmi()

    # -- registers --------------------------------------------------------------------------------------------------

    def read_mmio(self, offset: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes at 0 to 0xfff; what isn't within the 32 bits of a register is 0."""
        place = offset & 0xF
        value = self._read(offset & 0xFF0) if place < 4 else 0
        return value >> 8 * place & (1 << 8 * size) - 1

    def write_mmio(self, offset: int, size: int, value: int) -> None:
        """A store. Only aligned stores of 4 bytes do anything; the manual leaves open what others do."""
        if size == 4 and not offset & 0xF:
            self._write(offset, value & 0xFFFF_FFFF)

    def _read(self, register: int) -> int:
        if register in self._lvt:
            return self._lvt[register]
        if Register.ISR <= register < Register.ESR:  # three times eight registers of 32 vectors
            held = self._vectors
            bits = (held.in_service, held.level_triggered, held.requested)[(register - Register.ISR) // 0x80]
            return bits >> 2 * (register % 0x80) & 0xFFFF_FFFF
        match register:
            case Register.ID:
                return self._addressing.identity
            case Register.VERSION:
                return VERSION
            case Register.TPR:
                return self._vectors.task_priority
            case Register.APR:
                return self._vectors.arbitration_priority
            case Register.PPR:
                return self._vectors.processor_priority
            case Register.LDR:
                return self._addressing.logical
            case Register.DFR:
                return self._addressing.format
            case Register.SVR:
                return self._spurious
            case Register.ESR:
                return self._errors_shown
            case Register.ICR:
                return self._addressing.command
            case Register.ICR_HIGH:
                return self._addressing.command_high
            case Register.INITIAL_COUNT:
                return self.timer.initial
            case Register.CURRENT_COUNT:
                return self.timer.current
            case Register.DIVIDE:
                return self.timer.divide
            case Register.EOI | Register.REMOTE_READ:
                return 0  # the one can only be written, the other has nobody to read from
        self._error(_ERROR_REGISTER)
        return 0

    def _write(self, register: int, value: int) -> None:
        if register in self._lvt:
            self._write_lvt(register, value)
            return
        match register:
            case Register.ID:
                self._addressing.identity = value & 0xFF00_0000
                self.on_identity(self._addressing.identity)
            case Register.TPR:
                self.task_priority = value
            case Register.EOI:
                self._end_of_interrupt()
            case Register.LDR:
                self._addressing.logical = value & 0xFF00_0000
            case Register.DFR:
                self._addressing.format = value | 0x0FFF_FFFF
            case Register.SVR:
                self._write_spurious(value)
            case Register.ESR:
                self._errors_shown, self._errors = self._errors, 0
            case Register.ICR:
                self._addressing.write_command(value)
                self._send()
            case Register.ICR_HIGH:
                self._addressing.command_high = value & 0xFF00_0000
            case Register.INITIAL_COUNT:
                self.timer.initial = value
            case Register.DIVIDE:
                self.timer.divide = value
            case Register.VERSION | Register.APR | Register.PPR | Register.REMOTE_READ | Register.CURRENT_COUNT:
                pass  # read only
            case _ if not Register.ISR <= register < Register.ESR:
                self._error(_ERROR_REGISTER)

    def _write_lvt(self, register: int, value: int) -> None:
        self.timer.advance()  # what expired before this store isn't masked by it
        self._lvt.write(register, value, self.enabled)
        if register == TIMER:
            self._configure_timer()
        self.on_interrupt()

    def _write_spurious(self, value: int) -> None:
        self.timer.advance()
        self._spurious = value & 0x3FF
        if not self.enabled:
            self._lvt.mask_all()
            self._configure_timer()
        self.on_interrupt()

    def _configure_timer(self) -> None:
        entry = self._lvt[TIMER]
        self.timer.configure(entry >> 17 & 3, bool(entry & MASKED))
