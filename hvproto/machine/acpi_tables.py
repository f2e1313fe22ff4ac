"""The ACPI tables of the machine (ACPI specification 1.0b, chapter 5; MADT: 5.2.8).

Kernels look for the root pointer at every 16 bytes of 0xe0000 to 0xfffff. It leads to the RSDT, and that to the FADT
(with FACS and DSDT) and the MADT. The hardware they describe is that of `power`, `interrupts` and `pci_functions`.
"""

from __future__ import annotations

import struct

from hvproto.machine import aml, ioapic, lapic
from hvproto.machine.interrupts import TIMER_INPUT
from hvproto.machine.pci_functions import SCI_IRQ
from hvproto.machine.power import PM_BASE, PM_TIMER_PORT, SLEEP_TYPE_OFF
from hvproto.machine.rtc_time import CENTURY

DEFAULT_ADDRESS = 0xF_6000
PCI_MEMORY = range(0xE000_0000, 0xFEC0_0000)
"""Physical addresses that the host bridge leaves to devices on PCI: no RAM may be there."""
_SEARCHED = range(0xE_0000, 0x10_0000)
_HEADER = struct.Struct("<4sIBB6s8sI4sI")
_OEM, _OEM_TABLE, _CREATOR = b"HVPROT", b"HVPROTO ", b"HVPR"
_CHECKSUM = 9  # its place in the header

_MULTIPLE_APIC = 1
_LEVEL2_LATENCY, _LEVEL3_LATENCY = 101, 1001  # microseconds: above 100 and 1000, these sleep states don't exist
# WBINVD works, HLT is C1; there is neither a sleep button nor an alarm of the RTC among the fixed features, but a power
# button is (bit 4 is clear); the timer has 24 bits (bit 8).
_FADT_FLAGS = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6
_PCAT_COMPATIBLE = 1  # there are 8259s as well
_ACTIVE_HIGH_LEVEL = 0b11_01
_CONFORMS = 0


def build(
    area: int = DEFAULT_ADDRESS,
    *,
    lapic_id: int = 0,
    ioapic_id: int = 1,
    sleep_type: int = SLEEP_TYPE_OFF,
    century: int = CENTURY,
) -> list[tuple[int, bytes]]:
    r"""All tables one behind the other from ``area`` on: (physical address, bytes) of each, the root pointer first.

    ``sleep_type`` (0 to 7) is what ``\_S5`` says: the value of SLP_TYP in PM1a_CNT that switches the machine off. It is
    0 by default because the PIIX4 has it so (5 is its "working" state), and so have kernels that don't read the DSDT.
    ``century`` is the index of the RTC's century byte, 0 if there is none. Raises ValueError if kernels wouldn't look
    at ``area`` or the tables don't end below 1 MiB.
    """
    facs = struct.pack("<4sI56x", b"FACS", 64)
    dsdt = _table(b"DSDT", _definition(sleep_type))
    madt = _table(b"APIC", _interrupt_controllers(lapic_id, ioapic_id))
    sizes = {"rsdp": 20, "rsdt": _HEADER.size + 8, "fadt": 116, "apic": len(madt), "facs": 64, "dsdt": len(dsdt)}
    at: dict[str, int] = {}
    end = area
    for table, size in sizes.items():
        at[table] = -(-end // 64) * 64 if table == "facs" else -(-end // 16) * 16  # the FACS has to be so
        end = at[table] + size
    if area % 16 or area not in _SEARCHED or end > _SEARCHED.stop:
        raise ValueError(f"no ACPI tables can be at {area:#x}")
    rsdt = _table(b"RSDT", struct.pack("<II", at["fadt"], at["apic"]))
    fadt = _table(b"FACP", _fixed_description(at["facs"], at["dsdt"], century))
    rsdp = _with_checksum(struct.pack("<8sB6sBI", b"RSD PTR ", 0, _OEM, 0, at["rsdt"]), 8)
    contents = (rsdp, rsdt, fadt, madt, facs, dsdt)
    return list(zip(at.values(), contents, strict=True))


def _fixed_description(facs: int, dsdt: int, century: int) -> bytes:
    """The FADT of revision 1 behind its header, 80 bytes."""
    return b"".join(
        (
            # SCI; no SMI_CMD: the hardware is in ACPI mode always, so nothing has to be written to it either.
            struct.pack("<IIBxHIBBBx", facs, dsdt, _MULTIPLE_APIC, SCI_IRQ, 0, 0, 0, 0),
            # Blocks: PM1a and PM1b events, PM1a and PM1b control, PM2 control, timer, GPE0 and 1; then their lengths.
            struct.pack("<8I", PM_BASE, 0, PM_BASE + 4, 0, 0, PM_TIMER_PORT, 0, 0),
            struct.pack("<7Bx", 4, 2, 0, 4, 0, 0, 0),
            struct.pack("<HHHHBB", _LEVEL2_LATENCY, _LEVEL3_LATENCY, 0, 0, 0, 0),  # caches are flushed by WBINVD
            struct.pack("<BBB3xI", 0, 0, century, _FADT_FLAGS),  # no day or month in the RTC's alarm
        )
    )


def _interrupt_controllers(lapic_id: int, ioapic_id: int) -> bytes:
    """The MADT behind its header. Overrides: line 0 enters elsewhere, the SCI isn't an edge as ISA's lines are."""
    return b"".join(
        (
            struct.pack("<II", lapic.DEFAULT_BASE, _PCAT_COMPATIBLE),
            struct.pack("<BBBBI", 0, 8, 0, lapic_id, 1),  # processor 0, enabled
            struct.pack("<BBBxII", 1, 12, ioapic_id, ioapic.DEFAULT_BASE, 0),
            struct.pack("<BBBBIH", 2, 10, 0, 0, TIMER_INPUT, _CONFORMS),
            struct.pack("<BBBBIH", 2, 10, 0, SCI_IRQ, SCI_IRQ, _ACTIVE_HIGH_LEVEL),
            struct.pack("<BBBHB", 4, 6, 0xFF, _CONFORMS, 1),  # LINT1 of every processor is NMI
        )
    )


def _definition(sleep_type: int) -> bytes:
    """The DSDT behind its header: the processor, the PCI host bridge and what it passes on, how to switch off."""
    windows = aml.resources(
        aml.address_range(aml.BUS_NUMBERS, 0, 0xFF),
        aml.ports(0xCF8, 8),
        aml.address_range(aml.PORTS, 0, 0xCF7),
        aml.address_range(aml.PORTS, 0xD00, 0xFFFF),
        aml.address_range(aml.MEMORY, 0xA_0000, 0xB_FFFF),
        aml.address_range(aml.MEMORY, PCI_MEMORY.start, PCI_MEMORY.stop - 1),
    )
    bridge = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_CRS", windows),
    )
    off = aml.integer(sleep_type)
    return b"".join(
        (
            aml.scope("\\_PR", aml.processor("CPU0", 0)),
            aml.scope("\\_SB", bridge),
            aml.name("\\_S5", aml.package(off, off, aml.integer(0), aml.integer(0))),  # PM1a, PM1b, reserved
        )
    )


def _table(signature: bytes, body: bytes) -> bytes:
    """``body`` behind a header; all tables here are of revision 1."""
    header = _HEADER.pack(signature, _HEADER.size + len(body), 1, 0, _OEM, _OEM_TABLE, 1, _CREATOR, 1)
    return _with_checksum(header + body, _CHECKSUM)


def _with_checksum(data: bytes, place: int) -> bytes:
    """The byte at ``place`` makes the sum of all a multiple of 256."""
    return data[:place] + bytes([-sum(data) & 0xFF]) + data[place + 1 :]
