"""INT 1Ah, AH=00h to 07h: the count of timer ticks, and the clock chip (Ralf Brown's interrupt list, INT 1A)."""

from __future__ import annotations

from hvproto.machine.bios import cmos as c
from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import CARRY, Call
from hvproto.machine.bios.cmos import Cmos

TICKS_PER_DAY = 0x1800B0
_DAY_SECONDS = 86_400


def serve(call: Call, cmos: Cmos) -> None:
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
            call.ch, call.cl, call.dh = cmos[c.HOURS], cmos[c.MINUTES], cmos[c.SECONDS]
            call.dl = cmos[c.STATUS_B] & c.DAYLIGHT
        case 0x03:
            _set(cmos, {c.HOURS: call.ch, c.MINUTES: call.cl, c.SECONDS: call.dh}, call.dl & c.DAYLIGHT)
        case 0x04:
            call.ch, call.cl, call.dh, call.dl = cmos[c.CENTURY], cmos[c.YEAR], cmos[c.MONTH], cmos[c.DAY]
        case 0x05:
            daylight = cmos[c.STATUS_B] & c.DAYLIGHT
            _set(cmos, {c.CENTURY: call.ch, c.YEAR: call.cl, c.MONTH: call.dh, c.DAY: call.dl}, daylight)
        case 0x06:
            if cmos[c.STATUS_B] & c.ALARM:
                call.set_flag(CARRY, True)  # one is set already
                return
            cmos[c.HOURS_ALARM], cmos[c.MINUTES_ALARM], cmos[c.SECONDS_ALARM] = call.ch, call.cl, call.dh
            cmos.enable(c.ALARM)
        case 0x07:
            cmos.disable(c.ALARM)
        case _:
            call.set_flag(CARRY, True)


def ticks_since_midnight(cmos: Cmos) -> int:
    """The ticks that the firmware begins with: what the clock shows in units of 65536/1193182 s."""
    hours, minutes, seconds = (
        10 * (raw >> 4) + (raw & 15) for raw in (cmos[c.HOURS], cmos[c.MINUTES], cmos[c.SECONDS])
    )
    return (3600 * hours + 60 * minutes + seconds) * TICKS_PER_DAY // _DAY_SECONDS


def _set(cmos: Cmos, values: dict[int, int], daylight: int) -> None:
    """Change registers while the chip doesn't count."""
    status = cmos[c.STATUS_B] & ~c.DAYLIGHT | daylight
    cmos[c.STATUS_B] = status | c.SET
    for index, value in values.items():
        cmos[index] = value
    cmos[c.STATUS_B] = status & ~c.SET
