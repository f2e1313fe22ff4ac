"""The tables by which a kernel without ACPI finds the APICs (Intel MultiProcessor Specification 1.4, order no. 242016).

A floating pointer structure, which kernels look for at every 16 bytes of 0xf0000 to 0xfffff, leads to the configuration
table. It describes what `interrupts.InterruptRouter` wires: one processor, one ISA bus, one I/O APIC.
"""

from __future__ import annotations

import struct

from hvproto.machine import ioapic, lapic
from hvproto.machine.interrupts import TIMER_INPUT
from hvproto.machine.pic import CASCADE

DEFAULT_ADDRESS = 0xF_5A00
_SEARCHED = range(0xF_0000, 0x10_0000)
_ISA_BUS = 0
_INT, _NMI, _EXT_INT = 0, 1, 3  # types of interrupt entries
_ENABLED_BOOT_PROCESSOR = 0b11
_CONFORMS = 0  # polarity and trigger as is usual on the bus


def build(
    address: int = DEFAULT_ADDRESS,
    *,
    signature: int = 0x0000_0F24,
    features: int = 0x0000_0201,
    lapic_id: int = 0,
    ioapic_id: int = 1,
) -> list[tuple[int, bytes]]:
    """The pointer structure at ``address``, the table 16 bytes behind it: (physical address, bytes) of each.

    ``signature`` and ``features`` are what CPUID leaf 1 has in EAX (12 bits of it) and EDX: by default a Pentium 4 of
    which no more is said than that it has an FPU and an APIC. Raises ValueError if kernels wouldn't look at
    ``address`` or the table doesn't end below 1 MiB.
    """
    entries = [
        struct.pack(
            "<BBBBII8x", 0, lapic_id, lapic.VERSION & 0xFF, _ENABLED_BOOT_PROCESSOR, signature & 0xFFF, features
        ),
        struct.pack("<BB6s", 1, _ISA_BUS, b"ISA   "),
        struct.pack("<BBBBI", 2, ioapic_id, ioapic.VERSION, 1, ioapic.DEFAULT_BASE),
        _interrupt(3, _EXT_INT, 0, ioapic_id, 0),  # the 8259s
        *(_interrupt(3, _INT, irq, ioapic_id, irq or TIMER_INPUT) for irq in range(16) if irq != CASCADE),
        _interrupt(4, _EXT_INT, 0, lapic_id, 0),
        _interrupt(4, _NMI, 0, 0xFF, 1),  # LINT1 of every processor
    ]
    body = b"".join(entries)
    header = struct.pack(
        "<4sHBB8s12sIHHIHBx",
        b"PCMP",
        44 + len(body),
        4,  # version 1.4
        0,
        b"HVPROTO ",
        b"PC          ",
        0,  # no table of the manufacturer
        0,
        len(entries),
        lapic.DEFAULT_BASE,
        0,  # nor an extended one
        0,
    )
    table = _with_checksum(header + body, 7)
    # Features: there is a table (no default configuration), and no IMCR.
    pointer = _with_checksum(struct.pack("<4sIBBB5x", b"_MP_", address + 16, 1, 4, 0), 10)
    if address % 16 or address not in _SEARCHED or address + 16 + len(table) > _SEARCHED.stop:
        raise ValueError(f"no MP table can be at {address:#x}")
    return [(address, pointer), (address + 16, table)]


def _interrupt(kind: int, delivery: int, irq: int, apic_id: int, pin: int) -> bytes:
    """An entry for an input of an I/O APIC (kind 3) or of a local APIC (4)."""
    return struct.pack("<BBHBBBB", kind, delivery, _CONFORMS, _ISA_BUS, irq, apic_id, pin)


def _with_checksum(data: bytes, place: int) -> bytes:
    """The byte at ``place`` makes the sum of all a multiple of 256."""
    return data[:place] + bytes([-sum(data) & 0xFF]) + data[place + 1 :]
