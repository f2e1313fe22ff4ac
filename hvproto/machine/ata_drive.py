"""One ATA drive: its registers and commands, by programmed I/O (ANSI X3.221-1994)."""

from __future__ import annotations

from collections.abc import Callable

from hvproto.machine.ata_identity import HEADS, MOST_MULTIPLE, SECTORS_PER_TRACK, identification
from hvproto.machine.ata_registers import (
    ABRT,
    ALWAYS_ONE,
    BSY,
    DF,
    DRQ,
    ERR,
    IDLE,
    IDNF,
    LBA_MODE,
    MULTIPLES,
    NOTHING_TO_DO,
    PASSED,
    TRANSFERS,
    UNC,
    VERIFIES,
    WRITES,
    Command,
)
from hvproto.machine.disk_backend import SectorBackend
from hvproto.machine.disk_image import SECTOR_SIZE


class AtaDrive:
    """A drive on a channel, which tells it what is written and asks it for ``status`` and ``interrupt``.

    ``changed`` is called whenever ``interrupt`` may have changed.
    """

    def __init__(self, backend: SectorBackend, serial: str, changed: Callable[[], None]) -> None:
        self._backend = backend
        self._serial = serial
        self._changed = changed
        self.interrupt = False
        self._command = 0
        self._operation = 0  # counts commands, so that an answer to an abandoned one is known as such
        self._heads, self._per_track = HEADS, SECTORS_PER_TRACK
        self._multiple = 0  # sectors in a block of READ and WRITE MULTIPLE; 0 as long as none is set
        self._block = 1  # sectors that the present command wants to transfer between two interrupts
        self._left = 0  # sectors of this command that are still to come, the present block included
        self._lba = 0
        self._buffer = bytearray()
        self._position = self._size = 0  # in the buffer, and how many bytes the block has
        self._features = 0
        self._error = self._count = self._sector = self._cylinder = self._drive_head = self.status = 0
        self.reset()

    # -- registers ----------------------------------------------------------------------------------------------------

    def register(self, number: int) -> int:
        """Registers 1 to 6 as the drive has them: the status in each of them while it is busy."""
        if self.status & BSY:
            return self.status
        if number == 6:
            return self._drive_head
        return (0, self._error, self._count, self._sector, self._cylinder & 0xFF, self._cylinder >> 8)[number]

    def write_register(self, number: int, value: int) -> None:
        match number:
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
                self._drive_head = value | ALWAYS_ONE

    def take(self, size: int) -> bytes:
        """The next bytes of the block that is offered, at most ``size``; none if the drive has nothing to offer."""
        if not self.status & DRQ or self._command in WRITES:
            return b""
        start = self._position
        data = bytes(self._buffer[start : start + size])
        self._position += size
        if self._position >= self._size:
            self._taken()
        return data

    @property
    def room(self) -> int:
        """How many bytes of the block that the drive waits for are still to come; 0 if it waits for none."""
        return self._size - self._position if self.status & DRQ and self._command in WRITES else 0

    def give(self, data: bytes) -> None:
        """Bytes for the block that the drive waits for."""
        if not self.status & DRQ or self._command not in WRITES:
            return
        self._buffer[self._position : self._position + len(data)] = data
        self._position += len(data)
        if self._position >= self._size:
            self.status = BSY
            self._store(self._operation, 0)

    def hold(self) -> None:
        """The reset line is asserted: nothing else matters any more."""
        self._operation += 1
        self.status = BSY
        self.interrupt = False

    def reset(self) -> None:
        """What power-on, a software reset and a diagnostic leave behind: the signature of a disk, and no command."""
        self._operation += 1
        self._error = PASSED
        self._count = self._sector = 1
        self._cylinder = 0
        self._drive_head = ALWAYS_ONE
        self.status = IDLE

    # -- commands -----------------------------------------------------------------------------------------------------

    def begin(self, command: int) -> None:
        self._operation += 1
        self._command = command
        self._error = 0
        self.status = IDLE
        self.signal(False)
        match command:
            case _ if command in TRANSFERS:
                self._begin_transfer()
            case Command.IDENTIFY:
                self._left = self._block = 1
                geometry = self._heads, self._per_track
                self._offer(identification(self._backend.sectors, *geometry, self._multiple, self._serial))
            case Command.DIAGNOSE:
                self.reset()
                self.signal(True)
            case Command.SET_GEOMETRY:
                if self._count:
                    self._heads, self._per_track = (self._drive_head & 0x0F) + 1, self._count
                self._finish(0 if self._count else ABRT)
            case Command.SET_MULTIPLE:
                self._set_multiple()
            case Command.CHECK_POWER:
                self._count = 0xFF  # neither idle nor asleep
                self._finish()
            case _:
                self._finish(0 if command in NOTHING_TO_DO else ABRT)

    def _set_multiple(self) -> None:
        """A power of two sectors, or 0 to forbid the commands; a number that can't be forbids them, too."""
        good = self._count <= MOST_MULTIPLE and not self._count & (self._count - 1)
        self._multiple = self._count if good else 0
        self._finish(0 if good else ABRT)

    def _begin_transfer(self) -> None:
        self._left = self._count or 256
        self._block = self._multiple if self._command in MULTIPLES else 1
        lba = self._address()
        if not self._block:
            self._finish(ABRT)
            return
        if lba is None:
            self._finish(IDNF)
            return
        self._lba = lba
        if self._command in VERIFIES:
            readable = min(self._left, max(0, self._backend.sectors - lba))
            self._left -= readable
            self._move_to(lba + (readable if self._left else readable - 1))
            self._finish(IDNF if self._left else 0)
        else:
            self._next_block(first=True)

    def _next_block(self, first: bool) -> None:
        sectors = min(self._block, self._left, self._backend.sectors - self._lba)
        if sectors <= 0:
            self._finish(IDNF)
            return
        self._size = sectors * SECTOR_SIZE
        if self._command in WRITES:
            self._buffer = bytearray(self._size)
            self._position = 0
            self.status = IDLE | DRQ
            if not first:  # a program that writes begins without being asked
                self.signal(True)
        else:
            self.status = BSY
            self._buffer = bytearray()
            self._fetch(self._operation)

    def _fetch(self, operation: int) -> None:
        lba = self._lba + len(self._buffer) // SECTOR_SIZE
        self._backend.read(lba, lambda data: self._fetched(operation, data))

    def _fetched(self, operation: int, data: bytes | None) -> None:
        if operation != self._operation:
            return
        if data is None:
            self._move_to(self._lba + len(self._buffer) // SECTOR_SIZE)
            self._finish(UNC)
            return
        self._buffer += data
        if len(self._buffer) < self._size:
            self._fetch(operation)
        else:
            self._offer(self._buffer)

    def _offer(self, data: bytes | bytearray) -> None:
        self._buffer = bytearray(data)
        self._position, self._size = 0, len(data)
        self.status = IDLE | DRQ
        self.signal(True)

    def _store(self, operation: int, start: int) -> None:
        sector = bytes(self._buffer[start : start + SECTOR_SIZE])
        self._backend.write(self._lba, sector, lambda ok: self._stored(operation, start + SECTOR_SIZE, ok))

    def _stored(self, operation: int, position: int, ok: bool) -> None:
        if operation != self._operation:
            return
        if not ok:
            self._finish(ABRT, fault=DF)
            return
        more = self._one_less()
        if position < self._size:
            self._store(operation, position)
        elif more:
            self._next_block(first=False)
        else:
            self._finish()

    def _taken(self) -> None:
        """The program has read a whole block. After the last one there is no further interrupt."""
        self.status = IDLE
        if self._command == Command.IDENTIFY:
            return
        more = False
        for _ in range(self._size // SECTOR_SIZE):
            more = self._one_less()
        if more:
            self._next_block(first=False)

    def _one_less(self) -> bool:
        """Count a sector as transferred; go to the next one if there is one."""
        self._left -= 1
        self._count = self._left & 0xFF
        if self._left:
            self._move_to(self._lba + 1)
        return self._left > 0

    def _finish(self, error: int = 0, fault: int = 0) -> None:
        self._error = error
        self.status = IDLE | fault | (ERR if error else 0)
        self.signal(True)

    def signal(self, on: bool) -> None:
        self.interrupt = on
        self._changed()

    # -- addresses ----------------------------------------------------------------------------------------------------

    def _address(self) -> int | None:
        """The sector that the registers name, None if no disk of this geometry has it."""
        head = self._drive_head & 0x0F
        if self._drive_head & LBA_MODE:
            return head << 24 | self._cylinder << 8 | self._sector
        if head >= self._heads or not 1 <= self._sector <= self._per_track:
            return None
        return (self._cylinder * self._heads + head) * self._per_track + self._sector - 1

    def _move_to(self, lba: int) -> None:
        """Make the registers name the sector in turn, so that they tell where an error happened."""
        self._lba = lba
        if self._drive_head & LBA_MODE:
            head, self._cylinder, self._sector = lba >> 24, lba >> 8 & 0xFFFF, lba & 0xFF
        else:
            track, sector = divmod(lba, self._per_track)
            cylinder, head = divmod(track, self._heads)
            self._cylinder, self._sector = cylinder & 0xFFFF, sector + 1
        self._drive_head = self._drive_head & 0xF0 | head & 0x0F
