"""INT 13h's transfers: read, write, verify and format, by place or by packet."""

from __future__ import annotations

import struct

from hvproto.machine.bios.call import Call
from hvproto.machine.bios.disk_status import Status
from hvproto.machine.bios.drive import Drive
from hvproto.machine.disk_image import SECTOR_SIZE
from hvproto.processor.segments import SegmentRegister

_READ, _WRITE, _SEEK = 0x02, 0x03, 0x07
_PACKET, _FLAT_PACKET = 16, 24
_FLAT_ADDRESS = 0xFFFF_FFFF
_DMA_PAGE = 0x10000
_FILLER = b"\xf6" * SECTOR_SIZE


def by_place(call: Call, drive: Drive) -> Status:
    """AH=02h to 04h: AL sectors from CH, CL and DH on, at ES:BX; how many were done comes back in AL."""
    count, address = call.al, call.base(SegmentRegister.ES) + call.bx
    lba = drive.geometry.lba(call.ch | (call.cl & 0xC0) << 2, call.dh, call.cl & 0x3F)
    call.al = 0
    if not count:
        return Status.BAD_COMMAND
    if lba is None:
        return Status.NOT_FOUND
    if drive.diskette is not None and address % _DMA_PAGE + count * SECTOR_SIZE > _DMA_PAGE:
        return Status.ACROSS_64K  # a fixed disk has no such limit: its data don't come by DMA
    status, call.al = _transfer(call, drive, call.ah, lba, count, address)
    return status


def by_packet(call: Call, drive: Drive) -> Status:
    """AH=42h to 44h and 47h: by the packet at DS:SI, where the count of what was done comes back."""
    at = call.base(SegmentRegister.DS) + call.si
    size, _, count, offset, segment, lba = struct.unpack("<BBHHHQ", call.read(at, _PACKET))
    if size < _PACKET:
        return Status.BAD_COMMAND
    if call.ah & 0x0F == _SEEK:
        return Status.OK if lba < drive.sectors else Status.NOT_FOUND
    address = segment * 16 + offset
    if segment << 16 | offset == _FLAT_ADDRESS and size >= _FLAT_PACKET:
        address = int.from_bytes(call.read(at + _PACKET, 8), "little")
    status, done = _transfer(call, drive, call.ah & 0x0F, lba, count, address)
    call.write(at + 2, done.to_bytes(2, "little"))
    return status


def format_track(call: Call, drive: Drive) -> Status:
    """AH=05h: the track CH, DH of a diskette, all of it, whatever list of sectors ES:BX points to."""
    lba = drive.geometry.lba(call.ch, call.dh, 1)
    if lba is None:
        return Status.NOT_FOUND
    done = all(drive.write(lba + number, _FILLER) for number in range(drive.geometry.sectors))
    return Status.OK if done else Status.WRITE_FAULT


def _transfer(call: Call, drive: Drive, what: int, lba: int, count: int, address: int) -> tuple[Status, int]:
    """Read, write, or else verify sectors; returns the status and how many are done."""
    wanted = min(count, max(0, drive.sectors - lba))
    status = Status.OK if wanted == count else Status.NOT_FOUND
    if what == _WRITE:
        return _write(call, drive, lba, wanted, address, status)
    sectors: list[bytes] = []
    for number in range(lba, lba + wanted):
        data = drive.read(number)
        if data is None:
            status = Status.BAD_DATA
            break
        sectors.append(data)
    if what == _READ and sectors:
        call.write_code(address, b"".join(sectors))
    return status, len(sectors)


def _write(call: Call, drive: Drive, lba: int, count: int, address: int, status: Status) -> tuple[Status, int]:
    for number in range(count):
        if not drive.write(lba + number, call.read(address + number * SECTOR_SIZE, SECTOR_SIZE)):
            return Status.WRITE_FAULT, number
    return status, count
