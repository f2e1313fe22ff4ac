"""Where the sectors of a disk are: in memory, or in a file that is written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from hvproto.errors import ImageError, MachineError
from hvproto.machine.disk_image import SECTOR_SIZE, check_disk_file, disk_error


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


class FileBackend:
    """A disk image file that is changed: each sector is in the file as soon as it is written.

    The file keeps its size, even if that isn't a whole number of sectors. Raises ImageError if it is missing, empty,
    not a plain file, or can't be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        check_disk_file(name)
        try:
            self._file = open(name, "r+b", buffering=0)  # noqa: SIM115 - it lives as long as the machine
        except OSError as error:
            raise disk_error(name, error, "written") from None
        self._size = os.fstat(self._file.fileno()).st_size
        if not self._size:
            raise ImageError(name, "the disk image is empty")

    @property
    def sectors(self) -> int:
        return -(-self._size // SECTOR_SIZE)

    def read(self, lba: int, done: Callable[[bytes | None], None]) -> None:
        try:
            data = os.pread(self._file.fileno(), SECTOR_SIZE, lba * SECTOR_SIZE)
        except OSError:
            done(None)
        else:
            done(data.ljust(SECTOR_SIZE, b"\0"))

    def write(self, lba: int, data: bytes, done: Callable[[bool], None]) -> None:
        start = lba * SECTOR_SIZE
        room = data[: self._size - start]
        try:
            written = os.pwrite(self._file.fileno(), room, start)
        except OSError:
            written = -1
        done(written == len(room))
