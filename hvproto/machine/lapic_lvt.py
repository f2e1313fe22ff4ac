"""The local vector table of a local APIC, with its two pins (Intel SDM vol. 3, 10.5.1).

Each entry says what an event here makes: the vector in bits 7:0, the delivery mode in bits 10:8, and more. Pins carry
True for "asserted", whatever voltage that is: the polarity bits are kept, and do nothing.
"""

from __future__ import annotations

from collections.abc import Callable

FIXED, LOWEST, NMI, EXT_INT = 0b000, 0b001, 0b100, 0b111
"""Delivery modes: bits 10:8 of the entries, of ICR and of the IOAPIC's entries."""

TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR = range(0x320, 0x380, 0x10)
"""The entries, by their offset into the page of registers."""

MASKED, LEVEL, REMOTE_IRR, MODE = 1 << 16, 1 << 15, 1 << 14, 7 << 8
_WRITABLE = {
    TIMER: 0x7_00FF,
    THERMAL: 0x1_07FF,
    PERFORMANCE: 0x1_07FF,
    LINT0: 0x1_A7FF,
    LINT1: 0x1_A7FF,
    ERROR: 0x1_00FF,
}


class LocalVectorTable:
    """``accept`` takes a fixed interrupt (vector, level triggered) and says whether it did; ``on_nmi`` takes an NMI."""

    def __init__(self, accept: Callable[[int, bool], bool], on_nmi: Callable[[], None]) -> None:
        self._accept, self._on_nmi = accept, on_nmi
        self._pins = [False, False]
        self.reset()

    def reset(self) -> None:
        """All masked. The pins stay as they are: they belong to the outside."""
        self._entries = dict.fromkeys(_WRITABLE, MASKED)

    def __contains__(self, register: int) -> bool:
        return register in self._entries

    def __getitem__(self, register: int) -> int:
        return self._entries[register]

    def write(self, register: int, value: int, enabled: bool) -> None:
        """A store to an entry; while the APIC isn't ``enabled``, no entry can be unmasked."""
        kept = self._entries[register] & REMOTE_IRR if register == LINT0 and value & LEVEL else 0
        self._entries[register] = value & _WRITABLE[register] | kept | (0 if enabled else MASKED)
        if register == LINT0:
            self._sample_level()

    def mask_all(self) -> None:
        """What disabling the APIC in SVR does."""
        for register in self._entries:
            self._entries[register] |= MASKED

    def set_pin(self, number: int, asserted: bool) -> bool:
        """LINT0 (0) or LINT1 (1); returns whether it rose. ExtINT isn't dealt with here: see `takes_ext_int`."""
        rose = asserted and not self._pins[number]
        self._pins[number] = asserted
        if number == 0 and self._lint0_is_level():
            self._sample_level()
        elif rose:
            self.trigger((LINT0, LINT1)[number])
        return rose

    def trigger(self, register: int) -> None:
        """An edge at an entry. Those of timer and error have no delivery mode: it reads as fixed."""
        entry = self._entries[register]
        if entry & MASKED:
            return
        if entry & MODE == NMI << 8:
            self._on_nmi()
        elif entry & MODE == FIXED << 8:
            self._accept(entry & 0xFF, False)

    def end_of_interrupt(self, vector: int) -> None:
        """The service of a level triggered interrupt has ended; a pin that is still asserted asks again."""
        if self._entries[LINT0] & 0xFF == vector:
            self._entries[LINT0] &= ~REMOTE_IRR
            self._sample_level()

    @property
    def takes_ext_int(self) -> bool:
        """Whether LINT0 passes the 8259's interrupts on, with the 8259's vectors (virtual wire mode)."""
        return self._entries[LINT0] & (MASKED | MODE) == EXT_INT << 8

    def _lint0_is_level(self) -> bool:
        """Only LINT0 can be level triggered, and only when it is fixed."""
        return self._entries[LINT0] & (LEVEL | MODE) == LEVEL

    def _sample_level(self) -> None:
        entry = self._entries[LINT0]
        if self._pins[0] and self._lint0_is_level() and not entry & (MASKED | REMOTE_IRR):
            self._entries[LINT0] |= REMOTE_IRR if self._accept(entry & 0xFF, True) else 0
