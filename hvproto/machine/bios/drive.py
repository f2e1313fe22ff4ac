"""A disk as the BIOS has it, and the drives' numbers: 0 and 1 are diskettes, from 80h on fixed disks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hvproto.machine.bios.diskette import Diskette, diskette
from hvproto.machine.bios.geometry import Geometry, geometry
from hvproto.machine.disk_backend import SectorBackend
from hvproto.machine.disk_image import SECTOR_SIZE

FIRST_FIXED_DISK = 0x80


@dataclass
class Drive:
    """``diskette`` is None for a fixed disk."""

    backend: SectorBackend
    diskette: Diskette | None = None
    geometry: Geometry = field(init=False)

    def __post_init__(self) -> None:
        if self.diskette is not None:
            self.geometry = self.diskette.geometry
        else:
            self.geometry = geometry(self.backend.sectors, self.read(0) or bytes(SECTOR_SIZE))

    @property
    def sectors(self) -> int:
        return self.backend.sectors

    def read(self, lba: int) -> bytes | None:
        """One sector; None if it can't be read, or not at once."""
        answers: list[bytes | None] = []
        self.backend.read(lba, answers.append)
        return answers[0] if answers else None

    def write(self, lba: int, data: bytes) -> bool:
        answers: list[bool] = []
        self.backend.write(lba, data, answers.append)
        return bool(answers and answers[0])


def numbered(disks: Sequence[SectorBackend]) -> dict[int, Drive]:
    """The drives by their BIOS numbers, that of the first disk first: it is the one to boot from."""
    drives: dict[int, Drive] = {}
    next_diskette, next_fixed = 0, FIRST_FIXED_DISK
    for backend in disks:
        kind = diskette(backend.sectors)
        if kind is None:
            drives[next_fixed] = Drive(backend)
            next_fixed += 1
        else:
            drives[next_diskette] = Drive(backend, kind)
            next_diskette += 1
    return drives
