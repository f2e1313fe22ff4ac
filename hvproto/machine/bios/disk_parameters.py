"""INT 13h's answers about a drive, and the tables that interrupt vectors point to."""

from __future__ import annotations

import struct

from hvproto.machine.bios.call import Call
from hvproto.machine.bios.disk_status import Status
from hvproto.machine.bios.drive import Drive
from hvproto.machine.bios.geometry import Geometry
from hvproto.machine.bios.rom import ROM_SEGMENT, rom
from hvproto.machine.disk_image import SECTOR_SIZE
from hvproto.processor.segments import SegmentRegister

_KIND_CHANGE_LINE, _KIND_FIXED = 2, 3
_EXTENDED_SIZE, _EXTENDED_SIZE_3 = 26, 30
_GEOMETRY_VALID = 0x0002
_NO_CONFIGURATION = 0xFFFF_FFFF


def kind(call: Call, drive: Drive) -> Status:
    """AH=15h: what the drive is, in AH, and for a fixed disk its sectors in CX:DX."""
    if drive.diskette is not None:
        call.ah = _KIND_CHANGE_LINE
    else:
        call.ah = _KIND_FIXED
        sectors = min(drive.sectors, 0xFFFF_FFFF)
        call.cx, call.dx = sectors >> 16, sectors & 0xFFFF
    return Status.OK


def geometry(call: Call, drive: Drive, count: int) -> Status:
    """AH=08h: the last cylinder, head and sector, and how many drives of the sort there are."""
    shape = drive.geometry
    last = shape.cylinders - 1
    if drive.diskette is not None:
        call.bx = drive.diskette.drive_type
        call.es, call.di = ROM_SEGMENT, rom().labels[f"diskette_table_{call.dl}"]
    call.ch, call.cl = last & 0xFF, shape.sectors | last >> 2 & 0xC0
    call.dh, call.dl = shape.heads - 1, count
    call.al = 0
    return Status.OK


def set_media(call: Call, drive: Drive) -> Status:
    """AH=18h: with the last cylinder and sector of the diskette that is in the drive, its table at ES:DI."""
    shape = drive.geometry
    if (call.ch, call.cl & 0x3F) != (shape.cylinders - 1, shape.sectors):
        return Status.UNKNOWN_MEDIA
    call.es, call.di = ROM_SEGMENT, rom().labels[f"diskette_table_{call.dl}"]
    return Status.OK


def extended(call: Call, drive: Drive) -> Status:
    """AH=48h: the table at DS:SI, which says how long it may become."""
    at = call.base(SegmentRegister.DS) + call.si
    room = int.from_bytes(call.read(at, 2), "little")
    if room < _EXTENDED_SIZE:
        return Status.BAD_COMMAND
    size = _EXTENDED_SIZE_3 if room >= _EXTENDED_SIZE_3 else _EXTENDED_SIZE
    shape = drive.geometry
    fields = (size, _GEOMETRY_VALID, shape.cylinders, shape.heads, shape.sectors, drive.sectors)
    table = struct.pack("<HHIIIQHI", *fields, SECTOR_SIZE, _NO_CONFIGURATION)
    call.write(at, table[:size])
    return Status.OK


def fixed_disk_table(shape: Geometry) -> bytes:
    """The 16 bytes that the vectors 41h and 46h point to (PC/AT Technical Reference, fixed disk parameter table)."""
    control = 8 if shape.heads > 8 else 0
    cylinders, heads = shape.cylinders, shape.heads & 0xFF
    fields = (cylinders, heads, 0, 0xFFFF, 0, control, 0, 0, 0, cylinders, shape.sectors, 0)
    return struct.pack("<HBHHBBBBBHBB", *fields)
