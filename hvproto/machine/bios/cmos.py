"""The registers of the clock chip, as the firmware uses them: time, alarm, and what it keeps in the memory behind.

Sources: Motorola MC146818; IBM PC AT Technical Reference (1502243), section 5, for the memory up to 30h.
"""

from __future__ import annotations

from hvproto.machine.ports import PortBus

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY, MONTH, YEAR, CENTURY = 0x07, 0x08, 0x09, 0x32
STATUS_A, STATUS_B, STATUS_C = 0x0A, 0x0B, 0x0C
SET, PERIODIC, ALARM, DAYLIGHT = 0x80, 0x40, 0x20, 0x01
"""Bits of register B."""
SHUTDOWN, DISKETTES, DISK_TYPES, EQUIPMENT, DISK_TYPE_0 = 0x0F, 0x10, 0x12, 0x14, 0x19
_CHECKED, _CHECKSUM = range(0x10, 0x2E), 0x2E
_INDEX, _DATA = 0x70, 0x71
_SLAVE_MASK, _MASTER_MASK = 0xA1, 0x21
_CLOCK_LINE, _CASCADE_LINE = 1 << 0, 1 << 2


class Cmos:
    """Reads and writes through ports 70h and 71h; the index is left where it was written last, as by any BIOS."""

    def __init__(self, ports: PortBus) -> None:
        self._ports = ports

    def __getitem__(self, index: int) -> int:
        self._ports.write(_INDEX, 1, index)
        return self._ports.read(_DATA, 1)

    def __setitem__(self, index: int, value: int) -> None:
        self._ports.write(_INDEX, 1, index)
        self._ports.write(_DATA, 1, value)

    def enable(self, interrupt: int) -> None:
        """Let PERIODIC or ALARM interrupts come, through the 8259s too."""
        self[STATUS_B] |= interrupt
        for port, line in ((_SLAVE_MASK, _CLOCK_LINE), (_MASTER_MASK, _CASCADE_LINE)):
            self._ports.write(port, 1, self._ports.read(port, 1) & ~line)

    def disable(self, interrupt: int) -> None:
        self[STATUS_B] &= ~interrupt

    def set_disks(self, fixed: int, diskette_types: bytes, equipment: int) -> None:
        """What the set-up program of an AT would have stored about the drives, with its checksum.

        ``diskette_types`` are those of drive A and B, 0 for an absent one; fixed disks are of type 47.
        """
        self[DISKETTES] = diskette_types[0] << 4 | diskette_types[1]
        self[DISK_TYPES] = (0xF0 if fixed > 0 else 0) | (0x0F if fixed > 1 else 0)
        for number in (0, 1):
            self[DISK_TYPE_0 + number] = 47 if fixed > number else 0
        self[EQUIPMENT] = equipment
        total = sum(self[index] for index in _CHECKED)
        self[_CHECKSUM], self[_CHECKSUM + 1] = total >> 8, total & 0xFF
