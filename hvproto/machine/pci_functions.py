"""The functions on PCI bus 0: host bridge (Intel 82440FX, order no. 290549), ISA bridge and IDE (82371SB, order no.
290550), and power management (82371AB, order no. 290562).

Registers have the values that they have after reset, except where the comment says "firmware": nobody else would set
those here, and kernels take them as they find them. Timing, memory types and routing are kept and have no effect.
"""

from __future__ import annotations

from hvproto.machine.pci import Field, PciFunction, identity, repeated
from hvproto.machine.power import PM_BASE

INTEL = 0x8086
HOST_BRIDGE, ISA_BRIDGE, IDE, POWER_MANAGEMENT = (0, 0), (1, 0), (1, 1), (1, 3)
"""Device and function, as on boards with these chips."""

SCI_IRQ = 9
"""The interrupt line of power management."""


def host_bridge() -> PciFunction:
    """82441FX: no memory hole, all of 0xc0000 to 0xfffff goes to PCI as after reset, SMRAM closed."""
    return PciFunction(
        identity(INTEL, 0x1237, 0x06_00_00, revision=2)
        | {
            0x04: Field(2, 0x0006, writable=0x0140),  # SERR# and parity; memory and bus master are always on
            0x06: Field(2, 0x0280, clearable=0x7100),
            0x0D: Field(1, 0, writable=0xF8),  # latency timer
            0x50: Field(2, 0, writable=0xFFFF),  # configuration of the chip
            0x52: Field(1, 0, writable=0xFF),  # DETURBO
            0x53: Field(1, 0x80, writable=0xFF),  # buffers
            0x55: Field(2, 0, writable=0xFFFF),  # types of DRAM
            0x57: Field(1, 0x01, writable=0xFF),
            0x58: Field(1, 0x10, writable=0xFF),
            0x68: Field(1, 0, writable=0xFF),  # the hole
            0x70: Field(1, 0, writable=0xF8),  # multi-transaction timer
            0x71: Field(1, 0x80, writable=0xFF),  # CPU latency
            0x72: Field(1, 0x02, writable=0x78),  # SMRAM
            0x90: Field(1, 0, writable=0xFF),  # what is an error
            0x91: Field(1, 0, clearable=0xFF),
            0x93: Field(1, 0, writable=0x0E),  # reset control
        }
        | repeated(range(0x59, 0x60), Field(1, 0, writable=0x77))  # PAM: who answers in 16 KiB each
        | repeated(range(0x60, 0x68), Field(1, 0x01, writable=0xFF))  # row boundaries
    )


def isa_bridge() -> PciFunction:
    """82371SB function 0. Its header type says that the device has further functions."""
    return PciFunction(
        identity(INTEL, 0x7000, 0x06_01_00, header=0x80)
        | {
            0x04: Field(2, 0x0007, writable=0x0008),  # special cycles
            0x06: Field(2, 0x0200, clearable=0x7800),
            0x4C: Field(1, 0x4D, writable=0x7F),  # recovery timer
            0x4E: Field(2, 0x0003, writable=0x01FF),  # chip selects
            0x69: Field(1, 0x02, writable=0xFE),  # top of memory
            0x6A: Field(2, 0, writable=0x8084),
            0x70: Field(1, 0x80, writable=0xEF),
            0x76: Field(1, 0x0C, writable=0x8F),
            0x77: Field(1, 0x0C, writable=0x8F),
            0x78: Field(2, 0x0002, writable=0xFFFE),
            0x80: Field(1, 0, writable=0x7F),  # base of the IOAPIC
            0x82: Field(1, 0, writable=0x0F),
            0xA0: Field(1, 0x08, writable=0x1F),  # SMIs from here on
            0xA2: Field(2, 0, writable=0x01FF),
            0xA4: Field(4, 0, writable=0xFFFF_FFFF),
            0xA8: Field(1, 0x0F, writable=0xFF),
            0xAA: Field(2, 0, clearable=0x01FF),
            0xAC: Field(1, 0, writable=0xFF),
            0xAE: Field(1, 0, writable=0xFF),
        }
        | repeated(range(0x60, 0x64), Field(1, 0x80, writable=0x8F))  # PIRQ A to D: bit 7 is "leads nowhere"
    )


def ide() -> PciFunction:
    """82371SB function 1: both channels at their old ports; the bus master's are never decoded."""
    return PciFunction(
        identity(INTEL, 0x7010, 0x01_01_80)
        | {
            0x04: Field(2, 0x0001, writable=0x0005),  # ports (firmware: on), bus master
            0x06: Field(2, 0x0280, clearable=0x3800),
            0x0D: Field(1, 0, writable=0xF0),
            0x20: Field(4, 0x0000_0001, writable=0x0000_FFF0),  # 16 ports of the bus master
            0x40: Field(2, 0x8000, writable=0xFFFF),  # firmware: the first channel is decoded ...
            0x42: Field(2, 0, writable=0xFFFF),  # ... the second isn't: there is no disk
            0x44: Field(1, 0, writable=0xFF),
        }
    )


def power_management(pm_base: int = PM_BASE) -> PciFunction:
    """82371AB function 3. ``pm_base`` is a multiple of 64, below 0x10000."""
    return PciFunction(
        identity(INTEL, 0x7113, 0x06_80_00, revision=3)
        | {
            0x04: Field(2, 0, writable=0x0001),  # the ports of the SMBus; those of power management are in 0x80
            0x06: Field(2, 0x0280, clearable=0x0800),
            0x3C: Field(1, SCI_IRQ, writable=0xFF),  # firmware
            0x3D: Field(1, 1),  # INTA#
            0x40: Field(4, pm_base | 1, writable=0x0000_FFC0),  # firmware
            0x44: Field(4, 0, writable=0xFFFF_FFFF),  # idle timers
            0x48: Field(4, 0, writable=0xFFFF_FFFF),
            0x4C: Field(4, 0, writable=0xFFFF_FFFF),  # general purpose inputs
            0x80: Field(1, 0x01, writable=0x01),  # firmware: the ports at 0x40's base are decoded
            0x90: Field(4, 0x0000_0001, writable=0x0000_FFF0),  # 16 ports of the SMBus
            0xD2: Field(1, 0, writable=0x0F),
        }
        | repeated(range(0x50, 0x7C, 4), Field(4, 0, writable=0xFFFF_FFFF))  # devices that are watched
    )


def standard_functions() -> dict[tuple[int, int], PciFunction]:
    """All four, for `pci.PciBus`."""
    return {
        HOST_BRIDGE: host_bridge(),
        ISA_BRIDGE: isa_bridge(),
        IDE: ide(),
        POWER_MANAGEMENT: power_management(),
    }
