"""Diskettes: an image that has exactly the size of one lies in drive A or B (ECMA-66 to ECMA-125; PC DOS formats)."""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.machine.bios.geometry import Geometry

_40_TRACKS, _HIGH_DENSITY_5, _DOUBLE_DENSITY_3, _HIGH_DENSITY_3, _EXTRA_DENSITY_3 = range(1, 6)


@dataclass(frozen=True, slots=True)
class Diskette:
    """``drive_type`` is the drive's that takes it, as in byte 10h of the CMOS and BL of INT 13h, AH=08h."""

    drive_type: int
    geometry: Geometry

    @property
    def parameters(self) -> bytes:
        """The 11 bytes that vector 1Eh points to: times of the drive, 512 bytes a sector, sectors, gaps, filler."""
        sectors = self.geometry.sectors
        gap, format_gap = (0x2A, 0x50) if sectors < 15 else (0x1B, 0x54) if sectors == 15 else (0x1B, 0x6C)
        return bytes((0xDF, 0x02, 0x25, 0x02, sectors, gap, 0xFF, format_gap, 0xF6, 0x0F, 0x08))


_KINDS = {
    320: Diskette(_40_TRACKS, Geometry(40, 1, 8)),  # 160 KiB
    360: Diskette(_40_TRACKS, Geometry(40, 1, 9)),
    640: Diskette(_40_TRACKS, Geometry(40, 2, 8)),
    720: Diskette(_40_TRACKS, Geometry(40, 2, 9)),  # 360 KiB
    1440: Diskette(_DOUBLE_DENSITY_3, Geometry(80, 2, 9)),  # 720 KiB
    2400: Diskette(_HIGH_DENSITY_5, Geometry(80, 2, 15)),  # 1.2 MiB
    2880: Diskette(_HIGH_DENSITY_3, Geometry(80, 2, 18)),  # 1.44 MiB
    3360: Diskette(_HIGH_DENSITY_3, Geometry(80, 2, 21)),  # 1.68 MiB, for distribution
    5760: Diskette(_EXTRA_DENSITY_3, Geometry(80, 2, 36)),  # 2.88 MiB
}


def diskette(sectors: int) -> Diskette | None:
    """The diskette with so many sectors, None if there is none.

    >>> diskette(2880)
    Diskette(drive_type=4, geometry=Geometry(cylinders=80, heads=2, sectors=18))
    """
    return _KINDS.get(sectors)
