"""What a PC's firmware has left in memory when a loader starts a kernel: its data areas and the tables in its ROM.

Kernels look there without asking anybody: for the EBDA's segment at 40:0E, the size of base memory at 40:13, COM1's
port at 40:00, and from these places on for the MP and ACPI tables. All of it is reserved in `images.memory_map`, but
for the data area at 0x400, which every PC's map calls available.
"""

from __future__ import annotations

from hvproto.addresses import GPA
from hvproto.machine import acpi_tables, mp_table
from hvproto.machine.bios import data_area
from hvproto.machine.ram import SMALLEST_RAM
from hvproto.machine.uart import COM1

_EXTENDED_KIB = 1


def rom_tables() -> list[tuple[GPA, bytes]]:
    """The MP and ACPI tables: physical address and bytes of each; all lie between 0xf0000 and 1 MiB."""
    return [(GPA(address), content) for address, content in (*mp_table.build(), *acpi_tables.build())]


def left_behind(ram_size: int, disks: int) -> list[tuple[GPA, bytes]]:
    """Physical address and bytes of all that a kernel may look for; nothing in RAM too small for a PC's first MiB.

    ``disks`` is the number of fixed disks. The interrupt vectors at 0 aren't set: no services are behind them.
    """
    if ram_size < SMALLEST_RAM:
        return []
    areas = [
        (GPA(data_area.DATA_AREA), data_area.data_area(disks, COM1)),
        (GPA(data_area.EXTENDED_AREA), bytes((_EXTENDED_KIB,))),  # it begins with its own size
    ]
    return areas + rom_tables()
