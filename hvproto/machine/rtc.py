"""The real time clock with its memory, MC146818 (Motorola data sheet, 1984), at ports 0x70 and 0x71.

It starts from a date that is given, and runs by the machine's clock; the time of day outside never comes in. What a
BIOS keeps in the memory follows the IBM PC AT Technical Reference (no. 1502243, section 5) and, above byte 0x30, the
common practice of later BIOSes. Daylight saving (bit 0 of register B) is stored and does nothing.
"""

from __future__ import annotations

from datetime import datetime

from hvproto.machine.clock import CYCLES_PER_SECOND, Clock, Event
from hvproto.machine.pic import IrqLine
from hvproto.machine.rtc_time import (
    CENTURY,
    HOURS_24,
    WEEKDAY,
    Coding,
    advance_time,
    seconds_to_alarm,
    write_time,
)

INDEX_PORT, DATA_PORT = 0x70, 0x71
DEFAULT_START = datetime(2000, 1, 1)

_A, _B, _C, _D = 0x0A, 0x0B, 0x0C, 0x0D
_UPDATING = 0x80  # register A
_SET, _PERIODIC, _ALARM, _UPDATED = 0x80, 0x40, 0x20, 0x10  # register B; the last three also in register C
_SOURCES = _PERIODIC | _ALARM | _UPDATED
_REQUEST = 0x80  # register C
_VALID = 0x80  # register D: the battery is good

_BASE_HZ = 32_768
# UIP rises 244 microseconds before an update, which takes another 1,984.
_UPDATE_CYCLES = 2_228 * CYCLES_PER_SECOND // 1_000_000
_TIME_BYTES = frozenset(range(10)) | {CENTURY}
_CHECKED = range(0x10, 0x2E)  # the checksum is at 0x2e and 0x2f, the high byte first

KIB = 1024
_BASE_KIB = 640


class Rtc:
    """The clock. ``memory`` is its 128 bytes, for a BIOS to look at and change, from 0x0e on.

    Seconds change at multiples of `CYCLES_PER_SECOND` from cycle 0, where it is ``start``, until a program resets the
    divider. ``line`` is interrupt line 8. ``ram_size`` in bytes and ``disk_type`` (0xf0: a disk of type 47; 0: none)
    go into the memory as a BIOS would put them there.
    """

    ports = (INDEX_PORT, DATA_PORT)

    def __init__(
        self, clock: Clock, line: IrqLine, ram_size: int, *, start: datetime = DEFAULT_START, disk_type: int = 0xF0
    ) -> None:
        self.memory = bytearray(128)
        self.nmi_masked = False
        self._clock = clock
        self._line = line
        self._index = 0
        self._event: Event | None = None
        self._epoch = 0  # a cycle at which an update ended
        self._updates = 0  # that are in the registers, counted from the epoch
        self._periods = 0  # that register C knows
        self.memory[_A] = 0x26  # 32,768 Hz, periodic rate 1,024 Hz
        self.memory[_B] = HOURS_24
        self.memory[_D] = _VALID
        self.set_time(start)
        self._fill_memory(ram_size, disk_type)

    def set_time(self, time: datetime) -> None:
        """Set date and time as of the latest update, in the coding that register B asks for."""
        coding = self._coding()
        write_time(self.memory, time, coding)
        self.memory[WEEKDAY] = coding.encode(time.isoweekday() % 7 + 1)  # Sunday is 1

    def read_port(self, port: int, size: int) -> int:
        if port == INDEX_PORT:
            return 0xFF  # write-only
        self._advance()
        value = self.memory[self._index]
        if self._index == _A:
            value |= self._updating()
        elif self._index == _C:
            self.memory[_C] = 0
        self._settle()
        return value

    def write_port(self, port: int, size: int, value: int) -> None:
        if port == INDEX_PORT:
            self.nmi_masked = bool(value & 0x80)
            self._index = value & 0x7F
            return
        self._advance()
        match self._index:
            case 0x0A:
                self._write_a(value & ~_UPDATING)
            case 0x0B:
                # While the time is being set there are no updates, so neither is their interrupt enabled.
                self.memory[_B] = value & ~_UPDATED if value & _SET else value
            case 0x0C | 0x0D:
                pass  # read-only
            case _:
                self.memory[self._index] = value
        self._settle()

    # -- time -------------------------------------------------------------------------------------------------------

    def _coding(self) -> Coding:
        return Coding(self.memory[_B])

    def _held(self) -> bool:
        """Whether register A holds the divider in reset: then nothing moves."""
        return self.memory[_A] & 0x60 == 0x60

    def _write_a(self, value: int) -> None:
        was_held = self._held()
        self.memory[_A] = value
        if was_held and not self._held():
            self._epoch = self._clock.now - CYCLES_PER_SECOND // 2  # the first update comes 500 milliseconds later
            self._updates = 0
        # With another rate, the divider goes on; an edge that is past doesn't count again.
        self._periods = self._periods_at(self._clock.now)

    def _period(self) -> int:
        """The periodic interrupt's period in units of 1/32,768 second; 0: off."""
        rate = self.memory[_A] & 0x0F
        if rate == 0 or self._held():
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _periods_at(self, cycle: int) -> int:
        period = self._period()
        return (cycle - self._epoch) * _BASE_HZ // (CYCLES_PER_SECOND * period) if period else 0

    def _updating(self) -> int:
        if self._held() or self.memory[_B] & _SET:
            return 0
        return _UPDATING if (self._epoch - self._clock.now - 1) % CYCLES_PER_SECOND < _UPDATE_CYCLES else 0

    def _advance(self) -> None:
        """Bring the registers up to date."""
        if self._held():
            return
        now, registers = self._clock.now, self.memory
        periods = self._periods_at(now)
        if periods != self._periods:
            self._periods = periods
            registers[_C] |= _PERIODIC
        updates = (now - self._epoch) // CYCLES_PER_SECOND
        passed, self._updates = updates - self._updates, updates
        if passed and not registers[_B] & _SET:
            coding = self._coding()
            alarm = seconds_to_alarm(registers, coding)
            if alarm is not None and alarm <= passed:
                registers[_C] |= _ALARM
            advance_time(registers, passed, coding)
            registers[_C] |= _UPDATED

    # -- interrupts -------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Set the interrupt line and plan the next event that would raise it."""
        registers = self.memory
        requested = bool(registers[_C] & registers[_B] & _SOURCES)
        registers[_C] = registers[_C] & ~_REQUEST | (_REQUEST if requested else 0)
        self._line(requested)
        when = None if requested or self._held() else self._next_request()
        self._event = self._clock.move(self._event, when, self._on_event)

    def _next_request(self) -> int | None:
        """The cycle of the next interrupt; nothing is planned for sources that aren't enabled."""
        enabled = self.memory[_B]
        times = []
        period = self._period()
        if enabled & _PERIODIC and period:
            # The first cycle at which that many periods have passed.
            times.append(self._epoch - (self._periods + 1) * period * CYCLES_PER_SECOND // -_BASE_HZ)
        if not enabled & _SET:
            in_seconds = 1 if enabled & _UPDATED else None
            if enabled & _ALARM and in_seconds is None:
                in_seconds = seconds_to_alarm(self.memory, self._coding())
            if in_seconds is not None:
                times.append(self._epoch + (self._updates + in_seconds) * CYCLES_PER_SECOND)
        return min(times, default=None)

    def _on_event(self) -> None:
        self._event = None
        self._advance()
        self._settle()

    # -- memory -----------------------------------------------------------------------------------------------------

    def _fill_memory(self, ram_size: int, disk_type: int) -> None:
        memory = self.memory
        extended = max(ram_size // KIB - 1024, 0)
        memory[0x12] = disk_type
        memory[0x14] = 0x02  # equipment: a coprocessor, a VGA, no diskette drive
        memory[0x19] = 47 if disk_type >> 4 == 15 else 0  # the number of a disk's type above 14
        memory[0x15:0x17] = min(_BASE_KIB, ram_size // KIB).to_bytes(2, "little")
        memory[0x17:0x19] = memory[0x30:0x32] = min(extended, 0xFFFF).to_bytes(2, "little")
        # Above 16 MiB, in units of 64 KiB.
        memory[0x34:0x36] = min(max(extended - 15 * 1024, 0) // 64, 0xFFFF).to_bytes(2, "little")
        memory[0x3D] = 0x02  # start from the hard disk (the BIOSes of emulators)
        memory[0x2E:0x30] = sum(memory[at] for at in _CHECKED).to_bytes(2, "big")
