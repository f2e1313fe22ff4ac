"""The interval timer of a PC with its three counters (Intel 8254, order no. 231164), and port 0x61 beside it.

A *tick* here is one pulse of the input clock, 1.193182 MHz or `clock.CYCLES_PER_PIT_TICK` cycles of the machine. Ticks
fall on the multiples of that. Nothing is counted tick by tick: a counter remembers when it was loaded and with what,
and the rest follows.
Counter 0 drives interrupt line 0; counter 2 has its gate and its output in port 0x61 (Intel 82371SB, order no. 290550,
NMI status and control register).
"""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.clock import CYCLES_PER_PIT_TICK, Clock, Event
from hvproto.machine.complaints import Complain, ignore
from hvproto.machine.pic import IrqLine

SYSTEM_CONTROL_PORT = 0x61
_CONTROL_PORT = 0x43
_REFRESH_TICKS = 18  # 15 microseconds: how long each level of the memory refresh lasts


class Counter:
    """One counter: modes, gate and output. All times are in ticks; no call may give an earlier one than the last.

    ``out`` is the output as of the latest `advance`, ``raised`` how often it has risen.
    """

    def __init__(self, gate: bool, on_out: Callable[[bool], None]) -> None:
        self.mode = 3
        self.modulus = 0x10000  # 10,000 in BCD
        self.gate = gate
        self.out = True
        self.raised = 0
        self._on_out = on_out
        self._written: int | None = None  # the count register; None from the control word to the first count
        self._fresh = True  # whether it waits to be loaded
        self._count = 0  # what was loaded, 1 to modulus ...
        self._since: int | None = None  # ... at this tick, possibly the next one
        self._held = 0  # the value until then
        self._armed = False  # whether reaching zero still has an effect (modes 0, 1, 4, 5)
        self._strobe_end: int | None = None  # modes 4 and 5, while the output is low
        self._stopped: int | None = None  # the tick at which the gate stopped the counting

    # -- what the processor and the gate do -------------------------------------------------------------------------

    def programme(self, mode: int, bcd: bool, tick: int) -> None:
        """The control word: the output takes the mode's initial level, and counting waits for a count."""
        self._hold(tick)
        self.mode = mode
        self.modulus = 10_000 if bcd else 0x10000
        self._written, self._fresh = None, True
        self._strobe_end = None
        self._stopped = tick if self._gate_stops() and not self.gate else None
        self._drive(mode != 0)

    def begin_count(self, tick: int) -> None:
        """The first of two bytes of a count; only mode 0 takes notice."""
        self.advance(tick)
        if self.mode == 0:
            self._hold(tick)
            self._drive(False)

    def write_count(self, count: int, tick: int) -> None:
        """A complete count; 0 means the modulus. When it is loaded depends on the mode."""
        self.advance(tick)
        self._written, self._fresh = count or self.modulus, True
        about_to_load = self._since is not None and tick < self._since
        if self.mode in (0, 4) or (self.mode in (2, 3) and self._since is None) or about_to_load:
            self._load(tick)
        if self.mode == 0:
            self._drive(False)

    def set_gate(self, level: bool, tick: int) -> None:
        """The gate input: a rise starts modes 1, 2, 3 and 5, the low level stops modes 0, 2, 3 and 4."""
        self.advance(tick)
        if level == self.gate:
            return
        self.gate = level
        if not level:
            if self._gate_stops():
                self._stopped = tick
            if self.mode in (2, 3):
                self._drive(True)
            return
        if self.mode in (0, 4):
            if self._stopped is not None and self._since is not None:
                self._since += max(0, tick - max(self._stopped, self._since))
        elif self._written is not None:
            self._load(tick)
        self._stopped = None

    def value(self, tick: int) -> int:
        """The counting element, 0 to modulus - 1."""
        self.advance(tick)
        if self._since is None or tick < self._since:
            return self._held
        counted = (tick if self._stopped is None else max(self._stopped, self._since)) - self._since
        if self.mode == 3:
            return ((self._count & ~1) - 2 * counted) % self.modulus
        return (self._count - counted) % self.modulus

    @property
    def has_forbidden_count(self) -> bool:
        """Whether the last count written is 1 in a mode that doesn't allow it."""
        return self.mode in (2, 3) and self._written == 1

    def null_count(self, tick: int) -> bool:
        """Whether the last count written isn't in the counting element yet."""
        self.advance(tick)
        return self._fresh or self._since is None or tick < self._since

    # -- what time does ---------------------------------------------------------------------------------------------

    def next_change(self) -> tuple[int, bool] | None:
        """When the output changes next, and to what; None if not without help."""
        if self._strobe_end is not None:
            return self._strobe_end, True
        if self._since is None or self._stopped is not None:
            return None
        start, count = self._since, self._count
        match self.mode:
            case 2:
                return (start + count - 1, False) if self.out else (start + count, True)
            case 3:
                return (start + (count + 1) // 2, False) if self.out else (start + count // 2, True)
            case 1 if self.out and self._armed:
                return start, False
            case 0 | 1 if self._armed:
                return start + count, True
            case 4 | 5 if self._armed:
                return start + count, False
        return None

    def advance(self, tick: int) -> None:
        """Bring the output up to date."""
        self._skip_periods(tick)
        while (change := self.next_change()) is not None and change[0] <= tick:
            when, level = change
            if self.mode in (4, 5):
                self._strobe_end = None if level else when + 1
                self._armed = self._armed and level
            elif self.mode in (0, 1):
                self._armed = not level
            elif self.mode == 3 or level:
                self._since = when
                if self._fresh:
                    self._take_count()
            self._drive(level)

    def _skip_periods(self, tick: int) -> None:
        """Pass over all whole periods but one, so that a counter nobody looked at for long costs nothing."""
        if self.mode in (2, 3) and self.out and not self._fresh and self._stopped is None and self._since is not None:
            periods = (tick - self._since) // self._count - 1
            if periods > 0:
                self._since += periods * self._count
                self.raised += periods

    def _load(self, tick: int) -> None:
        """Load the counting element at the next tick."""
        self._hold(tick)
        self._since = tick + 1
        self._armed = True
        self._take_count()

    def _take_count(self) -> None:
        assert self._written is not None
        # The chip's modes 2 and 3 don't allow 1; it counts as 2 here, rather than not at all.
        self._count = max(self._written, 2) if self.mode in (2, 3) else self._written
        self._fresh = False

    def _hold(self, tick: int) -> None:
        self._held = self.value(tick) % self.modulus
        self._since = None
        self._armed = False

    def _gate_stops(self) -> bool:
        return self.mode not in (1, 5)

    def _drive(self, level: bool) -> None:
        if level != self.out:
            self.out = level
            self.raised += level
            self._on_out(level)


class _Access:
    """How the bytes of one counter go through its port: access mode, latches, and which byte is next."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self._mode = 3  # 1: low byte, 2: high byte, 3: low then high
        self._low_written: int | None = None
        self._low_read = False
        self._latched: list[int] = []
        self._status: int | None = None

    def programme(self, control: int, tick: int) -> None:
        self._mode = control >> 4 & 3
        mode = control >> 1 & 7
        self.counter.programme(mode if mode < 6 else mode - 4, bool(control & 1), tick)
        self._low_written = None
        self._low_read = False
        self._latched = []

    def latch_count(self, tick: int) -> None:
        if not self._latched:
            value = self._displayed(tick)
            # Half a 16-bit read may be over already; the other half then comes from the latch.
            self._latched = [value & 0xFF, value >> 8]
            if self._mode != 3:
                self._latched = [self._latched[self._mode - 1]]
            elif self._low_read:
                self._latched = self._latched[1:]

    def latch_status(self, tick: int) -> None:
        if self._status is None:
            counter = self.counter
            null = counter.null_count(tick)
            bcd = counter.modulus == 10_000
            self._status = counter.out << 7 | null << 6 | self._mode << 4 | counter.mode << 1 | bcd

    def read(self, tick: int) -> int:
        if self._status is not None:
            status, self._status = self._status, None
            return status
        high = self._mode == 2 or (self._mode == 3 and self._low_read)
        self._low_read = self._mode == 3 and not high
        if self._latched:
            return self._latched.pop(0)
        return self._displayed(tick) >> (8 if high else 0) & 0xFF

    def write(self, value: int, tick: int) -> None:
        if self._mode == 3 and self._low_written is None:
            self._low_written = value
            self.counter.begin_count(tick)
            return
        count = value if self._mode == 1 else value << 8 | (self._low_written or 0)
        self._low_written = None
        if self.counter.modulus == 10_000:
            count = sum((count >> 4 * place & 15) * 10**place for place in range(4)) % 10_000
        self.counter.write_count(count, tick)

    def _displayed(self, tick: int) -> int:
        value = self.counter.value(tick)
        return int(f"{value:04}", 16) if self.counter.modulus == 10_000 else value


class Pit8254:
    """The three counters at ports 0x40 to 0x43, and port 0x61.

    ``irq0`` follows the output of counter 0, at the exact cycle of each edge as long as the owner of the clock calls
    `Clock.run_due` in time. The outputs are high and nothing counts until a kernel programs it.
    """

    ports = (0x40, 0x41, 0x42, _CONTROL_PORT, SYSTEM_CONTROL_PORT)

    def __init__(self, clock: Clock, irq0: IrqLine) -> None:
        self._clock = clock
        self.complain: Complain = ignore
        self._event: Event | None = None
        self._system_control = 0
        self.counters = (Counter(True, irq0), Counter(True, _unconnected), Counter(False, _unconnected))
        self._access = tuple(_Access(counter) for counter in self.counters)

    @property
    def raised(self) -> int:
        """How many times counter 0 has raised interrupt line 0, up to the last event or access."""
        return self.counters[0].raised

    def read_port(self, port: int, size: int) -> int:
        tick = self._tick()
        if port == SYSTEM_CONTROL_PORT:
            self.counters[2].advance(tick)
            return self._system_control | (tick // _REFRESH_TICKS & 1) << 4 | self.counters[2].out << 5
        if port == _CONTROL_PORT:
            self.complain("the control word can't be read")
            return 0xFF
        value = self._access[port & 3].read(tick)
        self._plan()
        return value

    def write_port(self, port: int, size: int, value: int) -> None:
        tick = self._tick()
        if port == SYSTEM_CONTROL_PORT:
            # Bit 0 is the gate; the speaker and the two error masks are remembered and do nothing.
            self._system_control = value & 0x0F
            self.counters[2].set_gate(bool(value & 0x01), tick)
            return
        if port == _CONTROL_PORT:
            self._control(value, tick)
        else:
            self._access[port & 3].write(value, tick)
            if self.counters[port & 3].has_forbidden_count:
                self.complain(f"counter {port & 3} gets the count 1, which modes 2 and 3 don't allow")
        self._plan()

    def _control(self, value: int, tick: int) -> None:
        if value >> 6 == 3:  # read-back: the two latch bits count when they are 0
            for number, access in enumerate(self._access):
                if value & 2 << number:
                    if not value & 0x20:
                        access.latch_count(tick)
                    if not value & 0x10:
                        access.latch_status(tick)
        elif value & 0x30:
            self._access[value >> 6].programme(value, tick)
        else:
            self._access[value >> 6].latch_count(tick)

    def _tick(self) -> int:
        return self._clock.now // CYCLES_PER_PIT_TICK

    def _plan(self) -> None:
        """Keep one event on the agenda, for the next change of counter 0's output."""
        change = self.counters[0].next_change()
        when = None if change is None else change[0] * CYCLES_PER_PIT_TICK
        self._event = self._clock.move(self._event, when, self._on_change)

    def _on_change(self) -> None:
        self._event = None
        self.counters[0].advance(self._tick())
        self._plan()


def _unconnected(level: bool) -> None:
    """The outputs of counters 1 and 2 lead to no interrupt line."""
