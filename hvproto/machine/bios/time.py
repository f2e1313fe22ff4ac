"""INT 1Ah: the count of timer ticks, and the real-time clock (Motorola MC146818, registers 0 to 9 and 32h)."""

from __future__ import annotations

from datetime import datetime, timedelta

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import CARRY, Call
from hvproto.machine.clock import CYCLES_PER_SECOND, Clock
from hvproto.machine.ports import PortBus

_INDEX, _DATA = 0x70, 0x71
_SECONDS, _MINUTES, _HOURS, _DAY, _MONTH, _YEAR, _CENTURY = 0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32
_START = datetime(2026, 1, 1)
"""The date and time at cycle 0 of a machine without a clock chip."""


class TimeService:
    """Reads the clock chip if the board has one; else the time is virtual time since the first of January, 2026."""

    def __init__(self, clock: Clock, ports: PortBus) -> None:
        self._clock = clock
        self._ports = ports

    def serve(self, call: Call) -> None:
        """INT 1Ah. Numbers of date and time are BCD; carry is set for a function that isn't here."""
        call.set_flag(CARRY, False)
        match call.ah:
            case 0x00:
                ticks = int.from_bytes(call.read(area.TICKS, 4), "little")
                call.cx, call.dx = ticks >> 16, ticks & 0xFFFF
                call.al = call.read(area.MIDNIGHT, 1)[0]
                call.write(area.MIDNIGHT, b"\0")
            case 0x01:
                call.write(area.TICKS, (call.cx << 16 | call.dx).to_bytes(4, "little"))
                call.write(area.MIDNIGHT, b"\0")
            case 0x02:
                call.ch, call.cl, call.dh = (self._get(index) for index in (_HOURS, _MINUTES, _SECONDS))
                call.dl = 0
            case 0x03:
                self._set({_HOURS: call.ch, _MINUTES: call.cl, _SECONDS: call.dh})
            case 0x04:
                call.ch, call.cl, call.dh, call.dl = (self._get(i) for i in (_CENTURY, _YEAR, _MONTH, _DAY))
            case 0x05:
                self._set({_CENTURY: call.ch, _YEAR: call.cl, _MONTH: call.dh, _DAY: call.dl})
            case _:
                call.set_flag(CARRY, True)

    def _get(self, index: int) -> int:
        if self._ports.claimed(_DATA):
            self._ports.write(_INDEX, 1, index)
            return self._ports.read(_DATA, 1)
        now = _START + timedelta(seconds=self._clock.now // CYCLES_PER_SECOND)
        numbers = {
            _SECONDS: now.second, _MINUTES: now.minute, _HOURS: now.hour, _DAY: now.day, _MONTH: now.month,
            _YEAR: now.year % 100, _CENTURY: now.year // 100,
        }  # fmt: skip
        return int(str(numbers[index]), 16)

    def _set(self, values: dict[int, int]) -> None:
        if self._ports.claimed(_DATA):
            for index, value in values.items():
                self._ports.write(_INDEX, 1, index)
                self._ports.write(_DATA, 1, value)
