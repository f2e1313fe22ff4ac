"""Virtual time of the machine: a counter of executed cycles, and what is to happen at which count.

Nothing here knows the time of day. The count belongs to whoever runs the processor; the clock asks for it anew each
time, so that a device that is read in the middle of a run sees the cycle of that very read.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

PIT_HZ = 1_193_182
"""The input clock of the interval timer, from which a PC's other clocks are counted, too."""
CYCLES_PER_PIT_TICK = 400
CYCLES_PER_SECOND = CYCLES_PER_PIT_TICK * PIT_HZ
"""The nominal rate, 477,272,800 cycles a second: a whole multiple of the interval timer's clock.

A cycle is a byte of code, and an instruction has some three bytes, so this is the pace of a Pentium of 160 MHz. A
slower machine would take more interrupts for the same work: what they cost is Python's time. With a timer of 1 kHz, a
loop in registers reaches 0.53 times the speed of the bare engine at 400 cycles per tick, and 0.32 times at 100."""


class Event:
    """An action planned for one cycle; made by `Clock.at`."""

    __slots__ = ("action", "cancelled", "when")

    def __init__(self, when: int, action: Callable[[], None]) -> None:
        self.when = when
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        """Forget the action. Harmless when it has run already."""
        self.cancelled = True


class Clock:
    """Virtual time in cycles, with its agenda.

    >>> cycle = 0
    >>> clock = Clock(lambda: cycle)
    >>> event = clock.at(200, lambda: print("two hundred"))
    >>> clock.run_due(), clock.next_event()
    (0, 200)
    >>> cycle = 250
    >>> clock.run_due()
    two hundred
    1
    """

    def __init__(self, now: Callable[[], int]) -> None:
        """``now`` gives the current cycle, never less than it gave before."""
        self._now = now
        self.agenda: list[tuple[int, int, Event]] = []
        """When, sequence number, event: a heap."""
        self.sequence = 0

    @property
    def now(self) -> int:
        """The current cycle."""
        return self._now()

    def at(self, when: int, action: Callable[[], None]) -> Event:
        """Plan ``action`` for cycle ``when``; one that has passed already is due at once.

        Actions run from `run_due` only, never from here. Those of the same cycle run in the order they were planned.
        """
        self.sequence += 1
        return self.plan(when, self.sequence - 1, action)

    def move(self, event: Event | None, when: int | None, action: Callable[[], None]) -> Event | None:
        """Have one action at most planned, for cycle ``when`` or, with None, not at all: what is to be kept now.

        ``event`` is what was kept before; None where it has run, or there was none.
        """
        if event is not None:
            if event.when == when:
                return event
            event.cancel()
        return None if when is None else self.at(when, action)

    def plan(self, when: int, sequence: int, action: Callable[[], None]) -> Event:
        """The same with a sequence number that it has had before: for who puts an agenda back."""
        event = Event(when, action)
        heapq.heappush(self.agenda, (when, sequence, event))
        return event

    def next_event(self) -> int | None:
        """The cycle of the earliest action that is still planned, None if there is none."""
        while self.agenda and self.agenda[0][2].cancelled:
            heapq.heappop(self.agenda)
        return self.agenda[0][0] if self.agenda else None

    def run_due(self) -> int:
        """Run every action that is due, also those that an action plans for a cycle not later than now.

        Returns how many ran. An action that always plans itself anew for a cycle that has passed never comes to an end.
        """
        count = 0
        while (when := self.next_event()) is not None and when <= self.now:
            heapq.heappop(self.agenda)[2].action()
            count += 1
        return count
