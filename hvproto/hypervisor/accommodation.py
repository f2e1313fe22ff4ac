"""What a host is told of its guests, and how large a machine the bundled host needs for them.

The bundled host (guests/host/guests.asm) keeps 64 MiB for itself, its first guest and that one's hypervisor. What more
there is comes behind: each guest's memory and 16 MiB for its hypervisor, in whole tables of 4 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.errors import MachineError
from hvproto.images.multiboot_info import BootOptions
from hvproto.machine.ram import LARGEST_RAM, MIB

HOSTS_OWN = 64 * MIB
FIRST_GUEST = 16 * MIB
"""A guest's memory unless asked otherwise: the first one's has its place at physical 0 then, as its pool has."""
BELOW_THE_HOST = 32 * MIB
"""A first guest's memory up to this size is at physical 0, too, as plan `direct` needs it."""
POOL = 16 * MIB
MOST_GUESTS = 16
_TABLE = 4 * MIB


@dataclass(frozen=True, slots=True)
class Accommodation:
    """The host's command line, and the least RAM in bytes that a machine with the bundled host needs."""

    options: BootOptions
    ram_size: int


def accommodate(guests: int = 1, memory: int = FIRST_GUEST) -> Accommodation:
    """For so many guests with so many bytes of memory each. Raises MachineError for what can't be.

    >>> accommodate(2, 64 << 20).options.command_line, accommodate(2, 64 << 20).ram_size >> 20
    ('guests=2 memory=64', 224)
    >>> accommodate().options.command_line, accommodate().ram_size >> 20
    ('', 64)
    """
    if not 1 <= guests <= MOST_GUESTS:
        raise MachineError(f"{guests} guests: the host can have from 1 to {MOST_GUESTS}")
    if memory % MIB or memory < MIB:
        raise MachineError(f"a guest's memory of {memory:,} bytes: give whole MiB, for example 64M")
    if (guests, memory) == (1, FIRST_GUEST):
        return Accommodation(BootOptions(), HOSTS_OWN)
    whole = -(-memory // _TABLE) * _TABLE
    first = 0 if memory <= FIRST_GUEST else POOL if memory <= BELOW_THE_HOST else POOL + whole
    size = HOSTS_OWN + first + (guests - 1) * (POOL + whole)
    if size > LARGEST_RAM:
        raise MachineError(
            f"{guests} guests with {memory // MIB} MiB each need a machine with {size // MIB} MiB, "
            f"and there is none with more than {LARGEST_RAM // MIB}"
        )
    return Accommodation(BootOptions(f"guests={guests} memory={memory // MIB}"), size)
