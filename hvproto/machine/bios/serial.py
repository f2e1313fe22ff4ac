"""INT 14h: COM1 by a 16550 (Ralf Brown's interrupt list, INT 14)."""

from __future__ import annotations

from hvproto.machine.bios.call import Call
from hvproto.machine.ports import PortBus

COM1 = 0x3F8
_INTERRUPTS, _LINE_CONTROL, _MODEM_CONTROL, _LINE_STATUS, _MODEM_STATUS = 1, 3, 4, 5, 6
_DIVISOR_ACCESS, _READY = 0x80, 0x03
_DATA_READY, _TIMED_OUT = 0x01, 0x80
_DIVISORS = (1047, 768, 384, 192, 96, 48, 24, 12)
"""For 110, 150, 300, 600, 1200, 2400, 4800 and 9600 baud."""


def serve(call: Call, ports: PortBus) -> None:
    """INT 14h. Where a BIOS waits for a byte, this one says at once that none has come in time."""
    if call.dx:
        call.ah = _TIMED_OUT
        return

    def get(register: int) -> int:
        return ports.read(COM1 + register, 1)

    def put(register: int, value: int) -> None:
        ports.write(COM1 + register, 1, value)

    match call.ah:
        case 0x00:
            format_bits, divisor = call.al & 0x1F, _DIVISORS[call.al >> 5]
            put(_LINE_CONTROL, _DIVISOR_ACCESS | format_bits)
            put(0, divisor & 0xFF)
            put(1, divisor >> 8)
            put(_LINE_CONTROL, format_bits)
            put(_INTERRUPTS, 0)
        case 0x01:
            put(_MODEM_CONTROL, _READY)
            put(0, call.al)
            call.ah = get(_LINE_STATUS) & ~_TIMED_OUT
            return
        case 0x02:
            put(_MODEM_CONTROL, _READY)
            status = get(_LINE_STATUS)
            if status & _DATA_READY:
                call.al, call.ah = get(0), status & 0x1E  # errors only
            else:
                call.ah = _TIMED_OUT
            return
        case 0x03:
            pass
        case _:
            return
    call.ah, call.al = get(_LINE_STATUS), get(_MODEM_STATUS)
