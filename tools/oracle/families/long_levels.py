"""The two upper levels of 4-level paging: rights, NX, reserved bits, A bits, and pages of 1 GiB (SDM vol. 3, 4.5)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, Patch, at_end
from tools.oracle.families.paging import OFFSET, Tables, landing
from tools.oracle.tables import NX, PS, Mode

_ACCESSES = {
    "read": "mov eax, [rbx]", "write": "mov [rbx], eax", "update": "add dword ptr [rbx], 1", "fetch": "jmp rbx",
}  # fmt: skip
_PML4E, _PDPTE = at.PML4 + 8, at.PDPT + 8
"""The second entries, which nothing else uses."""
_BY_PML4, _BY_PDPT = 1 << 39, 1 << 30
_WATCHES = (_PML4E, _PDPTE, at.PD + 8 * (at.TEST >> 21), at.PT_TEST)
_TABLES = Tables(Mode.LONG)


def _case(name: str, what: str, address: int, ring: int, patches: tuple[Patch, ...], wp: int = 0) -> Case:
    text = at_end(f"mov rbx, {address:#x}\n{_ACCESSES[what]}")
    settings = {"cr0": at.BASE_CR0 | wp}
    return Case(f"upper/{name}/{what}/ring{ring}", text, ring, 2, patches + landing(OFFSET), _WATCHES, settings)


def _upper(level: str, rights: int) -> tuple[tuple[Patch, ...], int]:
    """The entry of one upper level with these rights, and the address that it leads to the first test page."""
    if level == "pml4e":
        return _TABLES.entry(_PML4E, at.PDPT | rights), _BY_PML4 + at.TEST + OFFSET
    return _TABLES.entry(_PDPTE, at.PD | rights), _BY_PDPT + at.TEST + OFFSET


def rights() -> Iterator[Case]:
    for level, upper, lower, what, ring, wp in product(
        ("pml4e", "pdpte"), (0, 1, 3, 5, 7), (7, 5, 0), _ACCESSES, (0, 3), (0, at.CR0_WP)
    ):
        patches, address = _upper(level, upper)
        name = f"{level}/{upper}-{lower}/wp{int(wp > 0)}"
        yield _case(name, what, address, ring, patches + _TABLES.page(0, lower), wp)


def bits() -> Iterator[Case]:
    """NX, reserved bits (PS of a PML4E is one), and those that are free."""
    for level, bit, given, what, ring in product(
        ("pml4e", "pdpte"), (51, 63, 52, 62, 8, 11), (7, 6), _ACCESSES, (0, 3)
    ):
        patches, address = _upper(level, given | 1 << bit)
        yield _case(f"{level}/bit{bit}-{given}", what, address, ring, patches)
    for what, ring, lower in product(_ACCESSES, (0, 3), (7, 0)):
        patches, address = _upper("pml4e", 7 | PS)
        yield _case(f"pml4e/ps-{lower}", what, address, ring, patches + _TABLES.page(0, lower))


def gigabytes() -> Iterator[Case]:
    address = _BY_PDPT + at.TEST_FRAMES + OFFSET
    for given, what, ring, wp in product((0, 1, 3, 5, 7, 0x27, 0x67), _ACCESSES, (0, 3), (0, at.CR0_WP)):
        yield _case(f"1g/{given:x}/wp{int(wp > 0)}", what, address, ring, _TABLES.entry(_PDPTE, PS | given), wp)
    for bit, given, what, ring in product((13, 21, 29, 51), (7, 6, 5), _ACCESSES, (0, 3)):
        yield _case(f"1g/bit{bit}-{given}", what, address, ring, _TABLES.entry(_PDPTE, PS | given | 1 << bit))
    for bit, what in product((8, 9, 12, 52), _ACCESSES):
        yield _case(f"1g/free-bit{bit}", what, address, 3, _TABLES.entry(_PDPTE, PS | 7 | 1 << bit))
    for given, what, ring in product((7, 5, 3), _ACCESSES, (0, 3)):
        yield _case(f"1g/nx-{given}", what, address, ring, _TABLES.entry(_PDPTE, PS | given | NX))


def cases() -> Iterator[Case]:
    yield from rights()
    yield from bits()
    yield from gigabytes()
