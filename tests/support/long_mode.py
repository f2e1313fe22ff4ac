"""Long mode on the bench: its tables beside those of 32-bit code, and the settings of the two environments."""

from __future__ import annotations

from hvproto.processor.paging import PS, P, U, W
from hvproto.processor.segments import DEFAULT_BIG, LONG, Segment, TableRegister, flat
from hvproto.processor.settings import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    EFER_SCE,
    Setting,
    SettingValue,
)
from tests.support.bench import CODE0, GDT, STUBS, TSS_ATTRIBUTES, TSS_SELECTOR, Bench
from tests.support.page_tables import CR3 as CR3_32
from tests.support.page_tables import identity

PML4, PDPT, DIRECTORY, IDT64, TSS64 = 0x60000, 0x61000, 0x62000, 0x63000, 0x64000
STACK64, USER_STACK64 = 0xA000, 0xC000
HIGH = 0xFFFF_8000_0000_0000
"""Where the first 2 MiB are mapped once more."""
WIDE0, WIDE3 = 0x70, 0x7B
_WIDE = LONG | DEFAULT_BIG
WIDE_CODE0 = Segment(WIDE0, 0, 0xFFFF_FFFF, flat(0, code=True, dpl=0).attributes ^ _WIDE)
WIDE_CODE3 = Segment(WIDE3, 0, 0xFFFF_FFFF, flat(0, code=True, dpl=3).attributes ^ _WIDE)
NULL_STACK = Segment(0)
LONG_SETTINGS: dict[Setting, SettingValue] = {
    Setting.EFER: EFER_LME | EFER_LMA | EFER_SCE,
    Setting.CR4: CR4_PAE,
    Setting.CR3: PML4,
    Setting.CR0: CR0_PE | CR0_ET | CR0_PG,
    Setting.IDTR: TableRegister(HIGH | IDT64, 0xFFF),
    Setting.GDTR: TableRegister(HIGH | GDT, 0x7FF),
    Setting.TR: Segment(TSS_SELECTOR, HIGH | TSS64, 0x67, TSS_ATTRIBUTES),
    Setting.LDTR: Segment(0),
}


def build(bench: Bench, *, gate_selector: int = WIDE0) -> None:
    """The tables of both environments; the bench is left in 32-bit protected mode with paging.

    Each vector's gate leads to the bench's stub, which halts.
    """
    identity(bench)
    bench.view[PML4:0x65000] = bytes(0x65000 - PML4)
    everything = P | W | U
    quad(bench, PML4, PDPT | everything)
    quad(bench, PML4 + 8 * 256, PDPT | everything)
    quad(bench, PDPT, DIRECTORY | everything)
    quad(bench, DIRECTORY, PS | everything)
    for vector in range(256):
        offset = STUBS + 16 * vector
        low = offset & 0xFFFF | gate_selector << 16 | 0xEE << 40 | (offset >> 16 & 0xFFFF) << 48
        quad(bench, IDT64 + 16 * vector, low)
        quad(bench, IDT64 + 16 * vector + 8, 0)
    quad(bench, TSS64 + 4, STACK64)
    bench.describe(WIDE_CODE0)
    bench.describe(WIDE_CODE3)


def quad(bench: Bench, physical: int, value: int) -> None:
    bench.store(physical, value & 0xFFFF_FFFF, value >> 32)


def host_settings(bench: Bench) -> dict[Setting, SettingValue]:
    """The settings as they are now."""
    return {setting: bench.cpu.read_setting(setting) for setting in Setting}


__all__ = ["CODE0", "CR3_32", "LONG_SETTINGS", "build", "host_settings", "quad"]
