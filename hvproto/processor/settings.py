"""The supervisor state of the processor, by name: what decoupling saves and replaces.

A *setting* is one named piece of supervisor state together with the register it lives in. Its
number is the register identification that the save area carries (WO0250664, step 26, claims 21-27).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

from hvproto.processor.segments import Segment, TableRegister

SettingValue = int | TableRegister | Segment


class Setting(IntEnum):
    """Register identifications; stable, since they stand in RAM."""

    IDTR = 1
    GDTR = 2
    LDTR = 3
    TR = 4
    CR0 = 5
    CR3 = 6
    CR4 = 7
    EFER = 8

    __hash__ = int.__hash__  # that of its name is computed in Python, each time

    @property
    def kind(self) -> type[int] | type[TableRegister] | type[Segment]:
        """The type of this setting's value."""
        if self in (Setting.IDTR, Setting.GDTR):
            return TableRegister
        if self in (Setting.LDTR, Setting.TR):
            return Segment
        return int


RECORD = struct.Struct("<IIQII")
"""One setting in RAM: identification, selector, value or base, limit, attributes (24 bytes)."""


def pack_setting(setting: Setting, value: SettingValue) -> bytes:
    """The 24-byte record of a setting.

    >>> pack_setting(Setting.CR3, 0x1000).hex()
    '060000000000000000100000000000000000000000000000'
    """
    match value:
        case TableRegister(base, limit):
            return RECORD.pack(setting, 0, base, limit, 0)
        case Segment(selector, base, limit, attributes):
            return RECORD.pack(setting, selector, base, limit, attributes)
        case int():
            return RECORD.pack(setting, 0, value, 0, 0)


def pack_all(values: Mapping[Setting, SettingValue]) -> bytes:
    """The records of all settings, in the order of their identification. Raises KeyError if one is missing."""
    return b"".join(pack_setting(setting, values[setting]) for setting in Setting)


def unpack_setting(record: bytes) -> tuple[Setting, SettingValue]:
    """The inverse of `pack_setting`. Raises ValueError for an unknown identification."""
    number, selector, value, limit, attributes = RECORD.unpack(record)
    setting = Setting(number)
    if setting.kind is TableRegister:
        return setting, TableRegister(value, limit)
    if setting.kind is Segment:
        return setting, Segment(selector, value, limit, attributes)
    return setting, value


def unpack_all(records: bytes) -> Iterator[tuple[Setting, SettingValue]]:
    """The inverse of `pack_all`."""
    return (unpack_setting(records[at : at + RECORD.size]) for at in range(0, len(records), RECORD.size))


def describe(value: SettingValue) -> str:
    """A setting's value for a person.

    >>> describe(TableRegister(0x2000, 0x7ff))
    '00002000:07ff'
    """
    match value:
        case TableRegister(base, limit):
            return f"{base:08x}:{limit:04x}"
        case Segment(selector, base, limit, _):
            return f"{selector:04x} -> {base:08x}:{limit:04x}"
        case int():
            return f"{value:08x}"


# Bits of the control registers that the rest of the package speaks of (SDM vol. 3, 2.5).
CR0_PE = 1 << 0
CR0_MP = 1 << 1
CR0_EM = 1 << 2
CR0_TS = 1 << 3
CR0_ET = 1 << 4
CR0_NE = 1 << 5
CR0_WP = 1 << 16
CR0_AM = 1 << 18
CR0_NW = 1 << 29
CR0_CD = 1 << 30
CR0_PG = 1 << 31
CR4_VME = 1 << 0
CR4_PVI = 1 << 1
CR4_TSD = 1 << 2
CR4_DE = 1 << 3
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_PGE = 1 << 7
CR4_PCE = 1 << 8
CR4_OSFXSR = 1 << 9
CR4_OSXMMEXCPT = 1 << 10
CR4_FSGSBASE = 1 << 16
CR4_DEFINED = 0x0037_27FF
"""Bits that may be set: all of SDM vol. 3, 2.5 that a processor of this time may have, whatever CPUID says."""
EFER_SCE = 1 << 0
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
EFER_NXE = 1 << 11
EFER_DEFINED = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE
EFER_MSR = 0xC000_0080
SYSENTER_CS_MSR = 0x174
SYSENTER_ESP_MSR = 0x175
SYSENTER_EIP_MSR = 0x176
STAR_MSR = 0xC000_0081
LSTAR_MSR = 0xC000_0082
FMASK_MSR = 0xC000_0084
TSC_AUX_MSR = 0xC000_0103

CSTAR_MSR = 0xC000_0083
BASE_MSRS = (0xC000_0100, 0xC000_0101, 0xC000_0102)
"""FS.base, GS.base, KERNEL_GS_BASE."""
CANONICAL_MSRS = frozenset({SYSENTER_ESP_MSR, SYSENTER_EIP_MSR, LSTAR_MSR, CSTAR_MSR, *BASE_MSRS})
"""Those that hold a linear address: WRMSR raises #GP(0) if it isn't canonical (SDM vol. 2, WRMSR)."""
DR6_BREAKPOINTS = 0xF
DR6_ONES, DR6_ZEROS = 0xFFFF_0FF0, 1 << 12
DR7_ONES, DR7_ZEROS = 1 << 10, 0xD000
DR6_BD = 1 << 13
DR6_BS = 1 << 14
DR7_GD = 1 << 13
DR7_ENABLED = 0xFF
"""The local and global enable bits of the four breakpoints."""
MXCSR_RESET = 0x1F80
"""All SSE exceptions masked (SDM vol. 1, 10.2.3)."""

EFLAGS_FIXED = 1 << 1
EFLAGS_CF = 1 << 0
EFLAGS_ZF = 1 << 6
EFLAGS_TF = 1 << 8
EFLAGS_IF = 1 << 9
EFLAGS_DF = 1 << 10
EFLAGS_IOPL = 3 << 12
EFLAGS_NT = 1 << 14
EFLAGS_RF = 1 << 16
EFLAGS_VM = 1 << 17
EFLAGS_AC = 1 << 18
EFLAGS_VIF = 1 << 19
EFLAGS_VIP = 1 << 20
EFLAGS_ID = 1 << 21
