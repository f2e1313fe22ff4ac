"""The calendar and the codes of the real time clock's registers (Motorola MC146818 data sheet, 1984, table 2).

Registers are raw bytes; how they are to be read depends on two bits of register B: binary or BCD, 24 or 12 hours with
the afternoon in bit 7.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime, timedelta

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
WEEKDAY, DAY, MONTH, YEAR = range(6, 10)
CENTURY = 0x32
BINARY, HOURS_24 = 0x04, 0x02  # bits of register B
_AFTERNOON = 0x80
_ANY = 0xC0  # an alarm register with both top bits set matches everything
DAY_SECONDS = 86_400
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59)


class Coding:
    """How numbers are written in the time registers under one value of register B."""

    def __init__(self, register_b: int) -> None:
        self._binary = bool(register_b & BINARY)
        self._hours_24 = bool(register_b & HOURS_24)

    def encode(self, number: int) -> int:
        """0 to 99 as a byte."""
        return number if self._binary else number // 10 << 4 | number % 10

    def decode(self, raw: int) -> int:
        return raw if self._binary else 10 * (raw >> 4) + (raw & 15)

    def encode_hour(self, hour: int) -> int:
        """0 to 23; in 12-hour coding midnight is 12 in the morning, noon 12 in the afternoon."""
        if self._hours_24:
            return self.encode(hour)
        return self.encode((hour + 11) % 12 + 1) | (_AFTERNOON if hour >= 12 else 0)

    def decode_hour(self, raw: int) -> int:
        if self._hours_24:
            return self.decode(raw)
        return self.decode(raw & ~_AFTERNOON) % 12 + (12 if raw & _AFTERNOON else 0)


def write_time(registers: bytearray, time: datetime, coding: Coding) -> None:
    """Set the time registers, but not the day of the week."""
    registers[SECONDS] = coding.encode(time.second)
    registers[MINUTES] = coding.encode(time.minute)
    registers[HOURS] = coding.encode_hour(time.hour)
    registers[DAY] = coding.encode(time.day)
    registers[MONTH] = coding.encode(time.month)
    registers[YEAR] = coding.encode(time.year % 100)
    registers[CENTURY] = coding.encode(time.year // 100)


def read_time(registers: bytearray, coding: Coding) -> datetime:
    """The time in the registers. What is no time becomes the nearest one, field by field."""

    def field(register: int, low: int, high: int) -> int:
        return min(max(coding.decode(registers[register]), low), high)

    year = 100 * field(CENTURY, 0, 99) + field(YEAR, 0, 99)
    month = field(MONTH, 1, 12)
    year = max(year, 1)
    day = field(DAY, 1, monthrange(year, month)[1])
    hour = min(coding.decode_hour(registers[HOURS]), 23)
    return datetime(year, month, day, hour, field(MINUTES, 0, 59), field(SECONDS, 0, 59))


def advance_time(registers: bytearray, seconds: int, coding: Coding) -> None:
    """Let ``seconds`` pass. After the year 9999 comes the year 1; the day of the week counts for itself, 1 to 7."""
    before = read_time(registers, coding)
    try:
        after = before + timedelta(seconds=seconds)
    except OverflowError:
        after = datetime.min + (timedelta(seconds=seconds - 1) - (_LAST_SECOND - before))
    days = (second_of_day(before) + seconds) // DAY_SECONDS
    weekday = coding.decode(registers[WEEKDAY])
    write_time(registers, after, coding)
    registers[WEEKDAY] = coding.encode((weekday - 1 + days) % 7 + 1)


def second_of_day(time: datetime) -> int:
    return 3600 * time.hour + 60 * time.minute + time.second


def seconds_to_alarm(registers: bytearray, coding: Coding) -> int | None:
    """In how many seconds, 1 to 86,400, the time will match the alarm registers; None: never."""
    hours = [hour for hour in range(24) if _matches(registers[HOURS_ALARM], coding.encode_hour(hour))]
    minutes = [minute for minute in range(60) if _matches(registers[MINUTES_ALARM], coding.encode(minute))]
    seconds = [second for second in range(60) if _matches(registers[SECONDS_ALARM], coding.encode(second))]
    now = second_of_day(read_time(registers, coding))
    for day in (0, DAY_SECONDS):
        for hour in hours:
            for minute in minutes:
                begin = day + 3600 * hour + 60 * minute
                if seconds and begin + seconds[-1] > now:
                    return next(begin + second - now for second in seconds if begin + second > now)
    return None


def _matches(alarm: int, raw: int) -> bool:
    return alarm & _ANY == _ANY or alarm == raw
