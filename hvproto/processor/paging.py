"""Paging formats, and a walker that reads page tables as the processor does (SDM vol. 3, chapter 4).

The walker is told how to read memory and nothing else, so the same code walks the host's tables,
a guest's tables in its own physical memory, and the hypervisor's mirror.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from hvproto.processor.settings import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_LMA, EFER_NXE

P = 1 << 0
W = 1 << 1
U = 1 << 2
PWT = 1 << 3
PCD = 1 << 4
A = 1 << 5
D = 1 << 6
PS = 1 << 7
G = 1 << 8
NX = 1 << 63

# The error code of a page fault (SDM vol. 3, figure 4-12).
ERROR_P = 1
ERROR_W = 2
ERROR_U = 4
ERROR_RSVD = 8
ERROR_I = 16

PHYSICAL_BITS = 40
"""MAXPHYADDR of this processor, as its CPUID leaf 0x80000008 says."""

ReadEntry = Callable[[int, int], int | None]
"""(physical address, size in bytes) -> entry, or None where there is no memory."""


@dataclass(frozen=True, slots=True)
class Format:
    """One of the processor's paging formats: entry size and, from the root, each level's shift and index width."""

    name: str
    entry_size: int
    levels: tuple[tuple[int, int], ...]
    """(shift, index bits) of each level, the root's first."""
    root_mask: int
    """The bits of CR3 that address the root table."""
    frame_mask: int
    """The bits of an entry that address a 4 KiB frame or a table."""

    @property
    def depth(self) -> int:
        return len(self.levels)

    def index(self, level: int, linear: int) -> int:
        """Index into the table at ``level`` (0 = root) for a linear address."""
        shift, bits = self.levels[level]
        return linear >> shift & ((1 << bits) - 1)


TWO_LEVEL = Format("2-level", 4, ((22, 10), (12, 10)), 0xFFFF_F000, 0xFFFF_F000)
PAE = Format("pae", 8, ((30, 2), (21, 9), (12, 9)), 0xFFFF_FFE0, 0x000F_FFFF_FFFF_F000)
FOUR_LEVEL = Format("4-level", 8, ((39, 9), (30, 9), (21, 9), (12, 9)), 0x000F_FFFF_FFFF_F000, 0x000F_FFFF_FFFF_F000)


def format_of(cr0: int, cr4: int, efer: int) -> Format | None:
    """The format that these control registers select; None while paging is off."""
    if not cr0 & CR0_PG:
        return None
    if efer & EFER_LMA:
        return FOUR_LEVEL
    return PAE if cr4 & CR4_PAE else TWO_LEVEL


class Access(Enum):
    """What an instruction wants with a page."""

    READ = 0
    WRITE = ERROR_W
    FETCH = ERROR_I


class Step(NamedTuple):
    """One entry that a walk read: its level (0 = root), physical address and value."""

    level: int
    address: int
    entry: int


class Walk(NamedTuple):
    """What the page tables say of one linear address.

    ``physical`` is None when an entry isn't present. The permissions are combined over all levels:
    AND of W and U, OR of NX. ``page_size`` is in bytes. ``reserved`` says that a present entry has a
    reserved bit set, which ends the walk and makes every access fault.
    """

    linear: int
    steps: tuple[Step, ...]
    physical: int | None
    writable: bool
    user: bool
    no_execute: bool
    page_size: int
    reserved: bool = False

    @property
    def present(self) -> bool:
        return self.physical is not None

    @property
    def leaf(self) -> Step:
        return self.steps[-1]


@dataclass(frozen=True, slots=True)
class PagingMode:
    """The control-register state that a walk depends on."""

    cr0: int
    cr3: int
    cr4: int
    efer: int

    @property
    def format(self) -> Format | None:
        return format_of(self.cr0, self.cr4, self.efer)

    @property
    def write_protect(self) -> bool:
        return bool(self.cr0 & CR0_WP)

    def allows_large(self, fmt: Format, level: int) -> bool:
        """Whether the PS bit counts at this level."""
        if fmt is TWO_LEVEL:
            return level == 0 and bool(self.cr4 & CR4_PSE)
        if fmt is PAE:
            return level == 1
        return level in (1, 2)


def walk(mode: PagingMode, read: ReadEntry, linear: int) -> Walk:
    """Walk the tables for ``linear``, changing nothing. With paging off, linear is physical."""
    fmt = mode.format
    if fmt is None:
        return Walk(linear, (), linear & 0xFFFF_FFFF, True, True, False, 4096)
    table = mode.cr3 & fmt.root_mask
    writable = user = True
    no_execute = False
    steps: list[Step] = []
    for level, (shift, _) in enumerate(fmt.levels):
        address = table + fmt.index(level, linear) * fmt.entry_size
        entry = read(address, fmt.entry_size)
        if entry is None:
            entry = (1 << 8 * fmt.entry_size) - 1  # nobody answers: on a PC's bus all bits are ones then
        steps.append(Step(level, address, entry))
        if not entry & P:
            return Walk(linear, tuple(steps), None, writable, user, no_execute, 1 << shift)
        if entry & reserved_bits(mode, fmt, level, entry):
            return Walk(linear, tuple(steps), None, writable, user, no_execute, 1 << shift, reserved=True)
        if not (fmt is PAE and level == 0):  # PDPTEs have no permission bits
            writable &= bool(entry & W)
            user &= bool(entry & U)
            no_execute |= bool(mode.efer & EFER_NXE and fmt.entry_size == 8 and entry & NX)
        if level == fmt.depth - 1:
            frame = entry & fmt.frame_mask
        elif entry & PS and mode.allows_large(fmt, level):
            frame = large_frame(fmt, entry, shift)
        else:
            table = entry & fmt.frame_mask
            continue
        offset = linear & ((1 << shift) - 1)
        return Walk(linear, tuple(steps), frame | offset, writable, user, no_execute, 1 << shift)
    raise AssertionError("a format's last level is always a leaf")


def reserved_bits(mode: PagingMode, fmt: Format, level: int, entry: int) -> int:
    """The bits that must be clear in a present entry at this level (SDM vol. 3, tables 4-4 to 4-20).

    PAE's PDPTEs have more of them, but those are checked when CR3 is loaded, not by a walk.
    """
    shift, _ = fmt.levels[level]
    large = bool(entry & PS) and level < fmt.depth - 1 and mode.allows_large(fmt, level)
    if fmt is TWO_LEVEL:
        return 1 << 21 if large else 0
    mask = 0
    if fmt is PAE:
        mask = NX - (1 << PHYSICAL_BITS)
        if level == 0:
            return mask | NX
    else:
        mask = (1 << 52) - (1 << PHYSICAL_BITS)
        if level == 0:
            mask |= PS
    if not mode.efer & EFER_NXE:
        mask |= NX
    if large:
        mask |= (1 << shift) - (1 << 13)
    return mask


def large_frame(fmt: Format, entry: int, shift: int) -> int:
    """Physical base of a large page; PSE-36 keeps bits 32-39 in bits 13-20 of a 2-level entry."""
    if fmt is TWO_LEVEL:
        return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
    return entry & fmt.frame_mask & ~((1 << shift) - 1)


def fault_code(mode: PagingMode, found: Walk, access: Access, *, user: bool) -> int | None:
    """The error code with which this access faults, or None if it is allowed (SDM vol. 3, 4.6 and 4.7)."""
    code = access.value | (ERROR_U if user else 0)
    if access is Access.FETCH and not (mode.efer & EFER_NXE and mode.cr4 & CR4_PAE):
        code &= ~ERROR_I
    if found.reserved:
        return code | ERROR_P | ERROR_RSVD
    if not found.present:
        return code
    allowed = not user or found.user
    if access is Access.WRITE and not found.writable:
        allowed &= not user and not mode.write_protect
    if access is Access.FETCH and found.no_execute:
        allowed = False
    return None if allowed else code | ERROR_P


def accessed_bits(mode: PagingMode, found: Walk, access: Access) -> list[tuple[int, int]]:
    """The (entry address, bits to OR in) with which the processor marks an allowed access (SDM vol. 3, 4.8)."""
    updates = []
    for step in found.steps:
        if mode.format is PAE and step.level == 0:
            continue  # a PAE PDPTE has neither bit
        wanted = A | (D if step is found.leaf and access is Access.WRITE else 0)
        if step.entry & wanted != wanted:
            updates.append((step.address, wanted))
    return updates
