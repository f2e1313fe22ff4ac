"""The timer of the local APIC (Intel SDM vol. 3, 10.5.4): one-shot, periodic, TSC deadline.

Its bus clock ticks once per cycle of virtual time, `clock.CYCLES_PER_SECOND` (477,272,800) times a second; the divide
configuration register makes counts of 1 to 128 ticks. Nothing is counted tick by tick: the timer knows the cycle at
which the count is zero, and the rest follows. The time-stamp counter of deadline mode is virtual time itself.
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.clock import Clock, Event

ONE_SHOT, PERIODIC, DEADLINE = 0, 1, 2
"""The modes, as bits 18:17 of the timer's LVT entry have them; 3 is reserved and does nothing."""

DIVISORS = {0b0000: 2, 0b0001: 4, 0b0010: 8, 0b0011: 16, 0b1000: 32, 0b1001: 64, 0b1010: 128, 0b1011: 1}
"""Bus ticks per count, by the divide configuration register (bit 2 of it doesn't exist)."""


class ApicTimer:
    """Counts down and calls ``on_expiry``, at the exact cycle if `Clock.run_due` is called in time.

    Expiries that the clock has jumped over come as one: the interrupt they ask for is the same. While ``masked``,
    none is planned, so that a timer that nobody listens to keeps no halted processor from its sleep.
    """

    def __init__(self, clock: Clock, on_expiry: Callable[[], None]) -> None:
        self._clock = clock
        self._on_expiry = on_expiry
        self._event: Event | None = None
        self.reset()

    def reset(self) -> None:
        """Stopped, one-shot, masked, two bus ticks per count."""
        self.mode = ONE_SHOT
        self.masked = True
        self._divide = 0
        self._initial = 0
        self._zero_at: int | None = None  # the cycle of the next expiry, masked or not; None while it doesn't count
        self._plan()

    # -- registers --------------------------------------------------------------------------------------------------

    def configure(self, mode: int, masked: bool) -> None:
        """What the LVT entry says. Going to or from deadline mode disarms the timer."""
        self.advance()
        if mode != self.mode and DEADLINE in (mode, self.mode):
            self._zero_at = None
        self.mode, self.masked = mode, masked
        self._plan()

    @property
    def divide(self) -> int:
        """The divide configuration register: a key of `DIVISORS`."""
        return self._divide

    @divide.setter
    def divide(self, value: int) -> None:
        count = self.current
        self._divide = value & 0b1011
        if count:
            self._zero_at = self._clock.now + count * DIVISORS[self._divide]
        self._plan()

    @property
    def initial(self) -> int:
        """The initial count, 0 to 2^32 - 1. Writing it starts the count anew; 0 stops it. Deadline mode ignores it."""
        return self._initial

    @initial.setter
    def initial(self, count: int) -> None:
        if self.mode == DEADLINE:
            return
        self.advance()
        self._initial = count
        self._zero_at = self._clock.now + self._period if count else None
        self._plan()

    @property
    def current(self) -> int:
        """The current count: what is left, rounded up to whole counts; 0 when nothing counts or in deadline mode."""
        self.advance()
        if self._zero_at is None or self.mode == DEADLINE:
            return 0
        return -((self._clock.now - self._zero_at) // DIVISORS[self._divide])

    @property
    def deadline(self) -> int:
        """IA32_TSC_DEADLINE: the cycle at which the timer expires, 0 if it isn't armed or the mode is another."""
        self.advance()
        return self._zero_at or 0 if self.mode == DEADLINE else 0

    @deadline.setter
    def deadline(self, cycle: int) -> None:
        if self.mode != DEADLINE:
            return
        self.advance()
        self._zero_at = cycle or None
        self._plan()

    # -- what time does ---------------------------------------------------------------------------------------------

    @property
    def _period(self) -> int:
        return self._initial * DIVISORS[self._divide]

    def advance(self) -> None:
        """Do what is due by now; the event may be late when a register is accessed in the middle of a run."""
        if self._zero_at is None or self._clock.now < self._zero_at:
            return
        if self.mode == PERIODIC and self._period:
            missed = (self._clock.now - self._zero_at) // self._period
            self._zero_at += (missed + 1) * self._period
        else:
            self._zero_at = None
        if not self.masked:
            self._on_expiry()

    def _plan(self) -> None:
        """Keep one event on the agenda, for the next expiry that somebody will notice."""
        when = None if self.masked else self._zero_at
        self._event = self._clock.move(self._event, when, self._on_event)

    def _on_event(self) -> None:
        self._event = None
        self.advance()
        self._plan()
