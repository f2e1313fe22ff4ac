"""INT 13h: disks by cylinder, head and sector, and by number (Phoenix Enhanced Disk Drive Specification 3.0)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from hvproto.machine.bios import data_area as area
from hvproto.machine.bios.call import CARRY, Call
from hvproto.machine.bios.geometry import Geometry, geometry
from hvproto.machine.bios.rom import ROM_SEGMENT, rom
from hvproto.machine.disk_backend import SectorBackend
from hvproto.machine.disk_image import SECTOR_SIZE
from hvproto.processor.segments import SegmentRegister

FIRST_FIXED_DISK = 0x80
_OK, _BAD_COMMAND, _NOT_FOUND, _BAD_DATA, _TIMEOUT, _WRITE_FAULT = 0x00, 0x01, 0x04, 0x10, 0x80, 0xCC
_EDD_VERSION = 0x21  # EDD 1.1: packets with 32-bit segmented addresses
_PACKET_ACCESS = 0x0001
_FLAT_ADDRESS = 0xFFFF_FFFF
_PARAMETERS_SIZE = 26
_DISKETTE_144 = 4
_NOTHING_TO_DO = {0x09, 0x0C, 0x0D, 0x10, 0x11, 0x14, 0x47}
"""Set up, seek, recalibrate, test: there is no drive that would have to move."""


@dataclass
class Drive:
    """A disk as the BIOS has it."""

    backend: SectorBackend
    geometry: Geometry = field(init=False)

    def __post_init__(self) -> None:
        self.geometry = geometry(self.backend.sectors, self.read(0) or bytes(SECTOR_SIZE))

    def read(self, lba: int) -> bytes | None:
        """One sector; None if it can't be read, or not at once."""
        answers: list[bytes | None] = []
        self.backend.read(lba, answers.append)
        return answers[0] if answers else None

    def write(self, lba: int, data: bytes) -> bool:
        answers: list[bool] = []
        self.backend.write(lba, data, answers.append)
        return bool(answers and answers[0])


class DiskService:
    """The drives by their BIOS numbers."""

    def __init__(self, drives: Mapping[int, Drive]) -> None:
        self.drives = dict(drives)

    def serve(self, call: Call) -> None:
        """INT 13h: the status comes back in AH and in 40:74, and carry says that it isn't 0."""
        function = call.ah
        drive = self.drives.get(call.dl)
        if function == 0x01:
            self._end(call, call.read(area.DISK_STATUS, 1)[0])
        elif function == 0x15:
            self._type(call, drive)
        elif drive is None:
            self._end(call, _BAD_COMMAND if call.dl >= FIRST_FIXED_DISK else _TIMEOUT)
        elif function in (0x02, 0x03, 0x04):
            self._by_place(call, drive, function)
        elif function in (0x42, 0x43, 0x44):
            self._by_packet(call, drive, function)
        elif function == 0x08:
            self._parameters(call, drive)
        elif function == 0x41 and call.bx == 0x55AA:
            call.bx, call.cx = 0xAA55, _PACKET_ACCESS
            self._end(call, _OK)
            call.ah = _EDD_VERSION
        elif function == 0x48:
            self._extended_parameters(call, drive)
        else:
            self._end(call, _OK if function == 0 or function in _NOTHING_TO_DO else _BAD_COMMAND)

    @staticmethod
    def _end(call: Call, status: int) -> None:
        call.ah = status
        call.write(area.DISK_STATUS, bytes((status,)))
        call.set_flag(CARRY, status != _OK)

    # -- transfers ---------------------------------------------------------------------------

    def _by_place(self, call: Call, drive: Drive, function: int) -> None:
        cylinder = call.ch | (call.cl & 0xC0) << 2
        lba = drive.geometry.lba(cylinder, call.dh, call.cl & 0x3F)
        if lba is None or not call.al:
            status, done = (_BAD_COMMAND if lba is not None else _NOT_FOUND), 0
        else:
            address = call.base(SegmentRegister.ES) + call.bx
            status, done = self._transfer(call, drive, function & 0x0F, lba, call.al, address)
        self._end(call, status)
        call.al = done

    def _by_packet(self, call: Call, drive: Drive, function: int) -> None:
        at = call.base(SegmentRegister.DS) + call.si
        size, _, count, offset, segment, lba = struct.unpack("<BBHHHQ", call.read(at, 16))
        if size < 16:
            self._end(call, _BAD_COMMAND)
            return
        address = segment * 16 + offset
        if segment << 16 | offset == _FLAT_ADDRESS and size >= 24:
            address = int.from_bytes(call.read(at + 16, 8), "little")
        status, done = self._transfer(call, drive, function & 0x0F, lba, count, address)
        call.write(at + 2, done.to_bytes(2, "little"))
        self._end(call, status)

    def _transfer(self, call: Call, drive: Drive, what: int, lba: int, count: int, address: int) -> tuple[int, int]:
        """Read (2), write (3) or verify (4) sectors; returns the status and how many are done."""
        available = max(0, drive.backend.sectors - lba)
        wanted = min(count, available)
        status = _OK if wanted == count else _NOT_FOUND
        if what == 0x03:
            return self._write(call, drive, lba, wanted, address, status)
        sectors: list[bytes] = []
        for number in range(lba, lba + wanted):
            data = drive.read(number)
            if data is None:
                status = _BAD_DATA
                break
            sectors.append(data)
        if what == 0x02 and sectors:
            call.write_code(address, b"".join(sectors))
        return status, len(sectors)

    @staticmethod
    def _write(call: Call, drive: Drive, lba: int, count: int, address: int, status: int) -> tuple[int, int]:
        for number in range(count):
            if not drive.write(lba + number, call.read(address + number * SECTOR_SIZE, SECTOR_SIZE)):
                return _WRITE_FAULT, number
        return status, count

    # -- what there is -----------------------------------------------------------------------

    def _type(self, call: Call, drive: Drive | None) -> None:
        fixed = call.dl >= FIRST_FIXED_DISK
        self._end(call, _OK)
        if drive is None:
            call.ah = 0  # no such drive, which isn't an error
        elif not fixed:
            call.ah = 1  # a diskette drive that doesn't notice a change
        else:
            call.ah = 3
            call.cx, call.dx = drive.backend.sectors >> 16 & 0xFFFF, drive.backend.sectors & 0xFFFF

    def _parameters(self, call: Call, drive: Drive) -> None:
        shape = drive.geometry
        last = shape.cylinders - 1
        fixed = call.dl >= FIRST_FIXED_DISK
        call.ch, call.cl = last & 0xFF, shape.sectors | last >> 2 & 0xC0
        call.dh = shape.heads - 1
        call.dl = sum((number >= FIRST_FIXED_DISK) == fixed for number in self.drives)
        if not fixed:
            call.bl = _DISKETTE_144
            call.es, call.di = ROM_SEGMENT, rom().labels["disk_parameters"]
        self._end(call, _OK)
        call.al = 0

    def _extended_parameters(self, call: Call, drive: Drive) -> None:
        at = call.base(SegmentRegister.DS) + call.si
        if int.from_bytes(call.read(at, 2), "little") < _PARAMETERS_SIZE:
            self._end(call, _BAD_COMMAND)
            return
        shape, valid = drive.geometry, 0x0002
        fields = (_PARAMETERS_SIZE, valid, shape.cylinders, shape.heads, shape.sectors, drive.backend.sectors)
        call.write(at, struct.pack("<HHIIIQH", *fields, SECTOR_SIZE))
        self._end(call, _OK)


def parameter_table(shape: Geometry) -> bytes:
    """The 16 bytes that the vectors 41h and 46h point to (PC/AT Technical Reference, fixed disk parameter table)."""
    control = 8 if shape.heads > 8 else 0
    cylinders, heads = shape.cylinders, shape.heads & 0xFF
    fields = (cylinders, heads, 0, 0xFFFF, 0, control, 0, 0, 0, cylinders, shape.sectors, 0)
    return struct.pack("<HBHHBBBBBHBB", *fields)
