"""Page tables on the bench: the low MiB as it is, and one probed page whose entries are the test's."""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.processor.paging import NX, PS, A, D, P, U, W
from hvproto.processor.settings import CR0_ET, CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_NXE, Setting
from tests.support.bench import Bench

CR3 = 0x40000
LOW_DIRECTORY = 0x41000
LOW_TABLE = 0x42000
PROBE_DIRECTORY = 0x43000
PROBE_TABLE = 0x44000
TABLES = range(CR3, 0x45000)
FRAME = 0x50000
PROBE = 0x4005_0123
"""The linear address that is tried; in large pages it has the same offset as the frame has in RAM."""
EVERYTHING = P | W | U


@dataclass(frozen=True)
class Tables:
    """A paging mode and the flags of the entries on the way to the probed page, the leaf's last.

    ``extra`` are bits to set in the entry that maps the page.
    """

    pae: bool = False
    pse: bool = False
    large: bool = False
    write_protect: bool = False
    nxe: bool = False
    directory: int = EVERYTHING
    table: int = EVERYTHING
    extra: int = 0

    def build(self, bench: Bench) -> None:
        """Write the tables and switch paging on."""
        bench.view[CR3:0x45000] = bytes(0x45000 - CR3)
        size = 8 if self.pae else 4

        def entry(table: int, index: int, value: int) -> None:
            bench.view[table + size * index : table + size * (index + 1)] = value.to_bytes(size, "little")

        if self.pae:
            entry(CR3, 0, LOW_DIRECTORY | P)
            entry(CR3, 1, PROBE_DIRECTORY | P)
            low, probe = (LOW_DIRECTORY, 0), (PROBE_DIRECTORY, PROBE >> 21 & 511)
            shift, bits = 21, 9
        else:
            low, probe = (CR3, 0), (CR3, PROBE >> 22)
            shift, bits = 22, 10
        entry(*low, LOW_TABLE | EVERYTHING | A)
        for page in range(256):
            entry(LOW_TABLE, page, page << 12 | EVERYTHING | A | D)
        if self.large:
            frame = PROBE & ((1 << shift) - 1) & ~0xFFF
            assert frame == FRAME
            entry(*probe, self.directory | PS | self.extra)
        else:
            entry(*probe, PROBE_TABLE | self.directory)
            entry(PROBE_TABLE, PROBE >> 12 & ((1 << bits) - 1), FRAME | self.table | self.extra)
        cpu = bench.cpu
        cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET)
        cpu.write_setting(Setting.CR4, CR4_PAE * self.pae | CR4_PSE * self.pse)
        cpu.write_setting(Setting.EFER, EFER_NXE * self.nxe)
        cpu.write_setting(Setting.CR3, CR3)
        cpu.write_setting(Setting.CR0, CR0_PE | CR0_ET | CR0_PG | CR0_WP * self.write_protect)


def identity(bench: Bench) -> None:
    """Paging with the low MiB mapped for everybody and nothing else."""
    Tables(directory=0).build(bench)


__all__ = ["CR3", "FRAME", "LOW_TABLE", "NX", "PROBE", "PROBE_TABLE", "TABLES", "Tables", "identity"]
