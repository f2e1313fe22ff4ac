"""A hard disk on the primary channel, by programmed I/O (ATA-1: ANSI X3.221-1994, and FLUSH CACHE from ATA-4).

The disk is the master, and there is no slave. Where the sectors come from is the backend's affair: it may answer at
once or much later, and BSY stays set until it does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from hvproto.errors import MachineError
from hvproto.machine.disk_image import SECTOR_SIZE
from hvproto.machine.pic import IrqLine

DATA_PORT = 0x1F0
CONTROL_PORT = 0x3F6

# Status register.
_BSY, _DRDY, _DF, _DSC, _DRQ, _ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
_IDLE = _DRDY | _DSC
# Error register.
_UNC, _IDNF, _ABRT = 0x40, 0x10, 0x04
_PASSED = 0x01  # the error register after a diagnostic
# Drive/head register.
_LBA_MODE, _SLAVE, _ALWAYS_ONE = 0x40, 0x10, 0xA0
# Device control register.
_NO_INTERRUPT, _RESET = 0x02, 0x04


class _Command(IntEnum):
    READ = 0x20
    READ_ONCE = 0x21  # the variants "without retries" are the same here: nothing ever needs one
    WRITE = 0x30
    WRITE_ONCE = 0x31
    VERIFY = 0x40
    VERIFY_ONCE = 0x41
    DIAGNOSE = 0x90
    SET_GEOMETRY = 0x91
    CHECK_POWER = 0xE5
    FLUSH = 0xE7
    IDENTIFY = 0xEC
    SET_FEATURES = 0xEF


_READS = {_Command.READ, _Command.READ_ONCE}
_WRITES = {_Command.WRITE, _Command.WRITE_ONCE}
_VERIFIES = {_Command.VERIFY, _Command.VERIFY_ONCE}
_TRANSFERS = _READS | _WRITES | _VERIFIES
# Recalibrate and seek, with any low nibble, move heads that aren't there; nor is there a motor for 0xe0 to 0xe3.
_NOTHING_TO_DO = {_Command.FLUSH, _Command.SET_FEATURES, *range(0xE0, 0xE4), *range(0x10, 0x20), *range(0x70, 0x80)}

_HEADS, _SECTORS_PER_TRACK, _MOST_CYLINDERS = 16, 63, 16383


class SectorBackend(Protocol):
    """Where the sectors of 512 bytes are. Every request is answered by exactly one call of ``done``."""

    @property
    def sectors(self) -> int:
        """How many there are; ``lba`` below is less."""

    def read(self, lba: int, done: Callable[[bytes | None], None]) -> None:
        """Fetch a sector; None says that it can't be read."""

    def write(self, lba: int, data: bytes, done: Callable[[bool], None]) -> None:
        """Store a sector; False says that it can't be written."""


class ImageBackend:
    """An image in memory. What is written stays here: the image given, or the file it came from, never changes.

    A last sector that isn't full is filled up with zeros. Raises MachineError for an image without any bytes.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        if not data:
            raise MachineError("a disk needs at least one byte")
        self._image = bytes(data)
        self._written: dict[int, bytes] = {}

    @property
    def sectors(self) -> int:
        return -(-len(self._image) // SECTOR_SIZE)

    def sector(self, lba: int) -> bytes:
        """The present contents of one sector."""
        start = lba * SECTOR_SIZE
        return self._written.get(lba) or self._image[start : start + SECTOR_SIZE].ljust(SECTOR_SIZE, b"\0")

    def read(self, lba: int, done: Callable[[bytes | None], None]) -> None:
        done(self.sector(lba))

    def write(self, lba: int, data: bytes, done: Callable[[bool], None]) -> None:
        self._written[lba] = data
        done(True)


class AtaDisk:
    """The disk and its channel: ports 0x1f0 to 0x1f7 and 0x3f6; ``irq`` is interrupt line 14."""

    ports = (*range(DATA_PORT, DATA_PORT + 8), CONTROL_PORT)
    wide_ports = frozenset({DATA_PORT})

    def __init__(self, backend: SectorBackend, irq: IrqLine) -> None:
        self._backend = backend
        self._irq = irq
        self._interrupt = False
        self._control = 0
        self._features = 0
        self._command = 0
        self._operation = 0  # counts commands, so that an answer to an abandoned one is known as such
        self._heads, self._per_track = _HEADS, _SECTORS_PER_TRACK
        self._left = 0  # sectors of this command that are still to come, the present one included
        self._lba = 0
        self._buffer = bytearray()
        self._position = 0
        self._error = self._count = self._sector = self._cylinder = self._drive_head = self._status = 0
        self._reset()

    # -- ports ------------------------------------------------------------------------------------------------------

    def read_port(self, port: int, size: int) -> int:
        if port == DATA_PORT:
            return self._read_data(size)
        register = 7 if port == CONTROL_PORT else port - DATA_PORT
        if register == 7:
            if self._drive_head & _SLAVE:
                return 0  # the master answers for the absent slave
            if port != CONTROL_PORT:
                self._signal(False)
            return self._status
        if self._status & _BSY:
            return self._status
        values = (0, self._error, self._count, self._sector, self._cylinder & 0xFF, self._cylinder >> 8)
        return values[register] if register < 6 else self._drive_head

    def write_port(self, port: int, size: int, value: int) -> None:
        if port == CONTROL_PORT:
            self._write_control(value)
        elif self._status & _BSY:
            return  # the registers belong to the disk now
        elif port == DATA_PORT:
            self._write_data(size, value)
        else:
            self._write_register(port - DATA_PORT, value)

    def _write_register(self, register: int, value: int) -> None:
        match register:
            case 1:
                self._features = value
            case 2:
                self._count = value
            case 3:
                self._sector = value
            case 4:
                self._cylinder = self._cylinder & 0xFF00 | value
            case 5:
                self._cylinder = self._cylinder & 0x00FF | value << 8
            case 6:
                self._drive_head = value | _ALWAYS_ONE
            case 7 if value == _Command.DIAGNOSE or not self._drive_head & _SLAVE:
                self._begin(value)

    def _write_control(self, value: int) -> None:
        was_held = self._control & _RESET
        self._control = value
        if value & _RESET:
            self._operation += 1
            self._status = _BSY
            self._interrupt = False
        elif was_held:
            self._reset()
        self._signal(self._interrupt)

    def _read_data(self, size: int) -> int:
        if not self._status & _DRQ or self._command in _WRITES:
            return (1 << 8 * size) - 1
        value = int.from_bytes(self._buffer[self._position : self._position + size], "little")
        self._position += size
        if self._position >= SECTOR_SIZE:
            self._taken()
        return value

    def _write_data(self, size: int, value: int) -> None:
        if not self._status & _DRQ or self._command not in _WRITES:
            return
        self._buffer[self._position : self._position + size] = value.to_bytes(size, "little")
        self._position += size
        if self._position >= SECTOR_SIZE:
            self._status = _BSY
            operation = self._operation
            self._backend.write(self._lba, bytes(self._buffer[:SECTOR_SIZE]), lambda ok: self._stored(operation, ok))

    # -- commands ---------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        """What power-on, a software reset and a diagnostic leave behind: the signature of a disk, and no command."""
        self._operation += 1
        self._error = _PASSED
        self._count = self._sector = 1
        self._cylinder = 0
        self._drive_head = _ALWAYS_ONE
        self._status = _IDLE

    def _begin(self, command: int) -> None:
        self._operation += 1
        self._command = command
        self._error = 0
        self._status = _IDLE
        self._signal(False)
        match command:
            case _ if command in _TRANSFERS:
                self._begin_transfer()
            case _Command.IDENTIFY:
                self._left = 1
                self._offer(self._identification())
            case _Command.DIAGNOSE:
                self._reset()
                self._signal(True)
            case _Command.SET_GEOMETRY:
                if self._count:
                    self._heads, self._per_track = (self._drive_head & 0x0F) + 1, self._count
                self._finish(0 if self._count else _ABRT)
            case _Command.CHECK_POWER:
                self._count = 0xFF  # neither idle nor asleep
                self._finish()
            case _:
                self._finish(0 if command in _NOTHING_TO_DO else _ABRT)

    def _begin_transfer(self) -> None:
        self._left = self._count or 256
        lba = self._address()
        if lba is None:
            self._finish(_IDNF)
            return
        self._lba = lba
        if self._command in _VERIFIES:
            readable = min(self._left, max(0, self._backend.sectors - lba))
            self._left -= readable
            self._move_to(lba + (readable if self._left else readable - 1))
            self._finish(_IDNF if self._left else 0)
        else:
            self._next_sector(first=True)

    def _next_sector(self, first: bool) -> None:
        if self._lba >= self._backend.sectors:
            self._finish(_IDNF)
        elif self._command in _WRITES:
            self._buffer = bytearray(SECTOR_SIZE)
            self._position = 0
            self._status = _IDLE | _DRQ
            if not first:  # a program that writes begins without being asked
                self._signal(True)
        else:
            self._status = _BSY
            operation = self._operation
            self._backend.read(self._lba, lambda data: self._fetched(operation, data))

    def _fetched(self, operation: int, data: bytes | None) -> None:
        if operation != self._operation:
            return
        if data is None:
            self._finish(_UNC)
        else:
            self._offer(data)

    def _offer(self, data: bytes) -> None:
        self._buffer = bytearray(data)
        self._position = 0
        self._status = _IDLE | _DRQ
        self._signal(True)

    def _stored(self, operation: int, ok: bool) -> None:
        if operation != self._operation:
            return
        if not ok:
            self._finish(_ABRT, fault=_DF)
        elif self._one_less():
            self._next_sector(first=False)
        else:
            self._finish()

    def _taken(self) -> None:
        """The program has read a whole sector. After the last one there is no further interrupt."""
        self._status = _IDLE
        if self._command != _Command.IDENTIFY and self._one_less():
            self._next_sector(first=False)

    def _one_less(self) -> bool:
        """Count a sector as transferred; go to the next one if there is one."""
        self._left -= 1
        self._count = self._left & 0xFF
        if self._left:
            self._move_to(self._lba + 1)
        return self._left > 0

    def _finish(self, error: int = 0, fault: int = 0) -> None:
        self._error = error
        self._status = _IDLE | fault | (_ERR if error else 0)
        self._signal(True)

    def _signal(self, on: bool) -> None:
        self._interrupt = on
        self._irq(on and not self._control & _NO_INTERRUPT)

    # -- addresses --------------------------------------------------------------------------------------------------

    def _address(self) -> int | None:
        """The sector that the registers name, None if no disk of this geometry has it."""
        head = self._drive_head & 0x0F
        if self._drive_head & _LBA_MODE:
            return head << 24 | self._cylinder << 8 | self._sector
        if head >= self._heads or not 1 <= self._sector <= self._per_track:
            return None
        return (self._cylinder * self._heads + head) * self._per_track + self._sector - 1

    def _move_to(self, lba: int) -> None:
        """Make the registers name the sector in turn, so that they tell where an error happened."""
        self._lba = lba
        if self._drive_head & _LBA_MODE:
            head, self._cylinder, self._sector = lba >> 24, lba >> 8 & 0xFFFF, lba & 0xFF
        else:
            track, sector = divmod(lba, self._per_track)
            cylinder, head = divmod(track, self._heads)
            self._cylinder, self._sector = cylinder & 0xFFFF, sector + 1
        self._drive_head = self._drive_head & 0xF0 | head & 0x0F

    def _identification(self) -> bytes:
        """The 256 words of IDENTIFY DRIVE (table 12 of the standard)."""
        total = min(self._backend.sectors, 1 << 28)
        cylinders = _cylinders(total, _HEADS * _SECTORS_PER_TRACK)
        current_cylinders = _cylinders(total, self._heads * self._per_track)
        by_chs = min(total, current_cylinders * self._heads * self._per_track)
        words = {0: 0x0040, 1: cylinders, 3: _HEADS, 6: _SECTORS_PER_TRACK}  # a fixed disk
        words |= {4: _SECTORS_PER_TRACK * SECTOR_SIZE, 5: SECTOR_SIZE}
        words |= {48: 1, 49: 0x0200, 51: 0x0200, 53: 1}  # 4-byte accesses; LBA; timing mode 2; words 54 to 58 count
        words |= {54: current_cylinders, 55: self._heads, 56: self._per_track}
        words |= {57: by_chs & 0xFFFF, 58: by_chs >> 16, 60: total & 0xFFFF, 61: total >> 16, 80: 0x0002}
        for first, length, text in ((10, 10, "HV0001"), (23, 4, "1.0"), (27, 20, "hvproto disk")):
            # Text has its first character in the high byte of a word.
            padded = text.ljust(2 * length).encode("ascii")
            words |= {first + n: int.from_bytes(padded[2 * n : 2 * n + 2], "big") for n in range(length)}
        return b"".join(words.get(number, 0).to_bytes(2, "little") for number in range(256))


def _cylinders(total: int, per_cylinder: int) -> int:
    return max(1, min(_MOST_CYLINDERS, total // max(1, per_cylinder)))
