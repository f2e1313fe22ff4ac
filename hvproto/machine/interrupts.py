"""How interrupts of a PC reach the processor: the pair of 8259s, the I/O APIC and the local APIC, wired together.

The wiring is that of the MultiProcessor Specification 1.4 (Intel, order no. 242016), 3.6.2: every interrupt line leads
to both the 8259s and the I/O APIC, line 0 to input 2 of the latter, the output of the 8259s to its input 0 and to LINT0
of the local APIC. There is no IMCR: the 8259s always go through the local APIC ("virtual wire"), whose LINT0
lets them through while the local APIC is disabled. (On a board, the firmware has to set LINT0 up for that.)
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.clock import Clock
from hvproto.machine.ioapic import IoApic
from hvproto.machine.lapic import LocalApic
from hvproto.machine.pic import IrqLine, Pic8259Pair

TIMER_INPUT = 2
"""Where interrupt line 0 enters the I/O APIC: input 0 is taken by the 8259s, and their cascade needs no input."""


class InterruptRouter:
    """What the processor and the devices see of the interrupt controllers: `pending`, `acknowledge` and `line`.

    ``on_change`` is called whenever `pending` has changed, ``on_nmi`` for every NMI. As long as nobody enables the
    local APIC, this is its `Pic8259Pair` and nothing else.
    """

    def __init__(
        self,
        clock: Clock,
        on_change: Callable[[], None] | None = None,
        on_nmi: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._pending = False
        self.pic = Pic8259Pair(self._on_pic)
        self.lapic = LocalApic(clock, self._settle, on_nmi, self._on_eoi)
        self.ioapic = IoApic(self.lapic, self._settle)
        self._pic_input = self.ioapic.line(0)

    @property
    def pending(self) -> bool:
        """Whether the processor has an interrupt to take, IF permitting."""
        return self._pending

    def acknowledge(self) -> int:
        """The vector; what was requested is in service from now on. What comes from the 8259s goes first.

        If nothing is requested any more: the spurious vector of the 8259s, or of the local APIC once that is enabled.
        """
        from_pic = self._passes_pic() and self.pic.pending
        if from_pic or (self.lapic.pending() is None and not self.lapic.enabled):
            return self.pic.acknowledge()
        return self.lapic.acknowledge()

    def line(self, number: int) -> IrqLine:
        """Interrupt line 0 to 15, except 2 (the cascade). Raises ValueError for any other number.

        Lines 16 to 23, which only the I/O APIC has, are ``ioapic.line(number)``.
        """
        to_pic = self.pic.line(number)
        to_ioapic = self.ioapic.line(number or TIMER_INPUT)

        def set_level(high: bool) -> None:
            to_pic(high)
            to_ioapic(high)

        return set_level

    def reset(self) -> None:
        """The APICs as after power-up; the 8259s have no reset line, and wait to be initialized."""
        self.lapic.reset()
        self.ioapic.reset()
        self.lapic.set_pin(0, self.pic.pending)
        self._settle()

    def _passes_pic(self) -> bool:
        return not self.lapic.enabled or self.lapic.takes_ext_int or self.ioapic.ext_int

    def _on_pic(self) -> None:
        self.lapic.set_pin(0, self.pic.pending)
        self._pic_input(self.pic.pending)
        self._settle()

    def _on_eoi(self, vector: int) -> None:
        self.ioapic.end_of_interrupt(vector)

    def _settle(self) -> None:
        pending = self.lapic.pending() is not None or (self.pic.pending and self._passes_pic())
        if pending != self._pending:
            self._pending = pending
            if self._on_change is not None:
                self._on_change()
