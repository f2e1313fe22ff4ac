"""INT 13h: disks by cylinder, head and sector, and by number.

Sources: IBM PS/2 and PC BIOS Interface Technical Reference, INT 13h; Phoenix Enhanced Disk Drive Specification 3.0.
"""

from __future__ import annotations

from collections.abc import Mapping

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios import disk_parameters as parameters
from hvproto.machine.bios import disk_transfer as transfer
from hvproto.machine.bios.call import CARRY, Call
from hvproto.machine.bios.disk_status import Status
from hvproto.machine.bios.drive import FIRST_FIXED_DISK, Drive

_EDD_VERSION = 0x30  # packets may have flat 64-bit addresses
_PACKET_ACCESS = 0x0001
_NOTHING_TO_DO_FIXED = frozenset((0x00, 0x09, 0x0C, 0x0D, 0x10, 0x11, 0x14))
"""Reset, set up, seek, recalibrate, test: there is no drive that would have to move."""
_NOTHING_TO_DO_DISKETTE = frozenset((0x00, 0x16, 0x17))
"""Reset; no, the diskette hasn't been changed; and its type is what it is."""


class DiskService:
    """The drives by their BIOS numbers."""

    def __init__(self, drives: Mapping[int, Drive]) -> None:
        self.drives = dict(drives)

    def serve(self, call: Call) -> None:
        """INT 13h: the status comes back in AH and in 40:41 or 40:74, and carry says that it isn't 0."""
        fixed = call.dl >= FIRST_FIXED_DISK
        at = area.DISK_STATUS if fixed else area.DISKETTE_STATUS
        function, drive = call.ah, self.drives.get(call.dl)
        if function == 0x01:
            status = Status(call.read(at, 1)[0])
        elif drive is None:
            status = self._without_drive(call, fixed)
        elif fixed:
            status = self._fixed(call, drive)
        else:
            status = self._diskette(call, drive)
        if function == 0x15:
            status = Status.OK  # AH is the kind of the drive
        elif function == 0x41 and status == Status.OK:
            call.ah = _EDD_VERSION
        else:
            call.ah = status
        call.write(at, bytes((status,)))
        call.set_flag(CARRY, status != Status.OK)

    def _without_drive(self, call: Call, fixed: bool) -> Status:
        match call.ah:
            case 0x00 if not fixed:
                return Status.OK  # the controller is reset
            case 0x08:
                call.bx = call.cx = call.dx = call.di = 0
                call.es = 0
                call.dl = self._count(fixed)
                return Status.NO_PARAMETERS if fixed else Status.OK
            case 0x15:
                call.ah = 0  # no such drive, which isn't an error
                return Status.OK
        return Status.BAD_COMMAND if fixed else Status.TIMEOUT

    def _fixed(self, call: Call, drive: Drive) -> Status:
        match call.ah:
            case 0x02 | 0x03 | 0x04:
                return transfer.by_place(call, drive)
            case 0x08:
                return parameters.geometry(call, drive, self._count(True))
            case 0x15:
                return parameters.kind(call, drive)
            case 0x41 if call.bx == 0x55AA:
                call.bx, call.cx = 0xAA55, _PACKET_ACCESS
                return Status.OK
            case 0x42 | 0x43 | 0x44 | 0x47:
                return transfer.by_packet(call, drive)
            case 0x48:
                return parameters.extended(call, drive)
            case function if function in _NOTHING_TO_DO_FIXED:
                return Status.OK
        return Status.BAD_COMMAND

    def _diskette(self, call: Call, drive: Drive) -> Status:
        match call.ah:
            case 0x02 | 0x03 | 0x04:
                return transfer.by_place(call, drive)
            case 0x05:
                return transfer.format_track(call, drive)
            case 0x08:
                return parameters.geometry(call, drive, self._count(False))
            case 0x15:
                return parameters.kind(call, drive)
            case 0x18:
                return parameters.set_media(call, drive)
            case function if function in _NOTHING_TO_DO_DISKETTE:
                return Status.OK
        return Status.BAD_COMMAND

    def _count(self, fixed: bool) -> int:
        return sum((number >= FIRST_FIXED_DISK) == fixed for number in self.drives)
