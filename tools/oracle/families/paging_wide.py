"""What 8-byte paging entries add: execute-disable, reserved bits, and the PDPTE registers of PAE."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, bytes_at
from tools.oracle.case import at as put
from tools.oracle.families.paging import ACCESSES, OFFSET, Tables, landing
from tools.oracle.tables import NX, PS, Mode, large_offset


def _some(tables: Tables) -> dict[str, str]:
    return {what: tables.accesses[what] for what in ("read", "update", "fetch")}


def execute_disable(tables: Tables) -> Iterator[Case]:
    """NX of each level, alone and with other reasons for a fault, with and without EFER.NXE (SDM vol. 3, 4.6)."""
    for upper_nx, lower_nx, lower, (what, code), ring, nxe in product(
        (0, 1), (0, 1), (7, 3, 6), _some(tables).items(), (0, 3), (1, 0)
    ):
        if not nxe and not (upper_nx or lower_nx):
            continue
        patches = tables.directory(7 | upper_nx * NX) + tables.page(0, lower | lower_nx * NX) + landing(OFFSET)
        name = f"nx/{upper_nx}{lower_nx}-{lower}/{what}/ring{ring}/nxe{nxe}"
        settings = {"efer": tables.efer | nxe * at.EFER_NXE}
        yield Case(name, at_end(code.format(at.TEST + OFFSET)), ring, 2, patches, tables.watches, settings)
    offset = large_offset(tables.mode) + OFFSET
    for given, (what, code), ring, nxe in product((7, 5, 3, 6), _some(tables).items(), (0, 3), (1, 0)):
        patches = tables.large(given | NX) + landing(OFFSET)
        settings = {"efer": tables.efer | nxe * at.EFER_NXE}
        text = at_end(code.format(at.LARGE + offset))
        yield Case(
            f"nx/large-{given}/{what}/ring{ring}/nxe{nxe}", text, ring, 2, patches, tables.large_watches, settings
        )
    for first, second, ring in product((0, 1), (0, 1), (0, 3)):
        # An instruction across two pages: mov eax, imm32, then INT END on the second page.
        data = bytes([0xB8, 0x11, 0x22, 0x33, 0x44, 0xCD, at.END])
        patches = tables.page(0, 7 | first * NX) + tables.page(1, 7 | second * NX)
        patches += bytes_at(at.TEST_FRAMES + 0xFFC, b"\x90\x90" + data[:2]) + bytes_at(
            at.TEST_FRAMES + 0x1000, data[2:]
        )
        text = f"mov eax, {at.TEST + 0xFFE:#x}\njmp {tables.pointer('eax')}"
        yield Case(f"nx/crossing-{first}{second}/ring{ring}", text, ring, 2, patches, tables.watches)


def reserved(tables: Tables) -> Iterator[Case]:
    """Reserved bits of each level (SDM vol. 3, 4.4.2, 4.5.4). Bit 51 is beyond what any model here can address."""
    high = (51,) if tables.mode is Mode.LONG else (51, 52, 62)
    for bit, given, (what, code), ring in product(high, (7, 6, 5, 1), _some(tables).items(), (0, 3)):
        text = at_end(code.format(at.TEST + OFFSET))
        tail = f"bit{bit}-{given}/{what}/ring{ring}"
        patches = tables.page(0, given | 1 << bit)
        yield Case(f"reserved/pte-{tail}", text, ring, 2, patches, tables.watches)
        if given in (7, 6):
            patches = tables.directory(given | 1 << bit)
            yield Case(f"reserved/pde-{tail}", text, ring, 2, patches, tables.watches)
            patches = tables.directory(given | 1 << bit) + tables.page(0, 0)
            yield Case(f"reserved/pde-absent-{tail}", text, ring, 2, patches, tables.watches)
    offset = large_offset(tables.mode) + OFFSET
    for bit, given, (what, code), ring in product((13, 20, 51), (7, 6, 5), _some(tables).items(), (0, 3)):
        text = at_end(code.format(at.LARGE + offset))
        patches = tables.large(given | 1 << bit)
        yield Case(f"reserved/large-bit{bit}-{given}/{what}/ring{ring}", text, ring, 2, patches, tables.large_watches)
    for bit, (what, code) in product((8, 9, 11, 12), _some(tables).items()):
        text = at_end(code.format(at.LARGE + offset))
        patches = tables.large(7 | 1 << bit) + landing(OFFSET)
        yield Case(f"reserved/large-free-bit{bit}/{what}", text, 3, 2, patches, tables.large_watches)
    if tables.mode is Mode.LONG:
        for bit, (what, code) in product((52, 58), _some(tables).items()):
            text = at_end(code.format(at.TEST + OFFSET))
            patches = tables.page(0, 7 | 1 << bit) + landing(OFFSET)
            yield Case(f"reserved/free-bit{bit}/{what}", text, 3, 2, patches, tables.watches)


def pdptes() -> Iterator[Case]:
    """The four PDPTEs of PAE: checked by what loads CR3, kept from then on (SDM vol. 3, 4.4.1)."""
    high = 0x40000000
    entry = at.PDPT + 8
    reload = "mov eax, cr3\nmov cr3, eax"
    for bit in (1, 2, 5, 6, 7, 8, 51, 52, 63):
        low, upper = (at.PD | 1 | 1 << bit) & 0xFFFFFFFF, (1 << bit) >> 32
        text = f"mov dword ptr [{entry + 4:#x}], {upper:#x}\nmov dword ptr [{entry:#x}], {low:#x}\n{reload}"
        yield Case(f"pdpte/reserved-bit{bit}", at_end(text), 0, 2, (), (entry, entry + 4))
        text = f"mov dword ptr [{entry + 4:#x}], {upper:#x}\nmov dword ptr [{entry:#x}], {low & ~1:#x}\n{reload}"
        yield Case(f"pdpte/absent-bit{bit}", at_end(text), 0, 2, (), (entry, entry + 4))
    for bit in (3, 4, 9, 10, 11):
        patches = put(entry, (at.PD | 1 | 1 << bit, 0))
        text = f"{reload}\nmov eax, [{high + at.TEST:#x}]"
        yield Case(f"pdpte/free-bit{bit}", at_end(text), 0, 2, patches, (entry, at.PT_TEST))
    for (what, code), ring, present in product(ACCESSES.items(), (0, 3), (0, 1)):
        patches = put(entry, (at.PD | present, 0)) + landing(OFFSET)
        text = at_end(code.format(high + at.TEST + OFFSET))
        yield Case(
            f"pdpte/present{present}/{what}/ring{ring}", text, ring, 2, patches, (entry, at.PD + 0x20, at.PT_TEST)
        )
    for where in (0x20, 0xFE0):
        # CR3 is aligned to 32 bytes only: the low bits of the address count.
        text = f"mov esi, {at.PDPT:#x}\nmov edi, {at.DATA + where:#x}\nmov ecx, 8\nrep movsd\n"
        text += f"mov eax, {at.DATA + where:#x}\nmov cr3, eax\nmov eax, [{at.TEST:#x}]\nmov ecx, cr3"
        yield Case(f"pdpte/at-{where:x}", at_end(text), 0, 2, (), (at.PT_TEST,))


def large_without_pse(tables: Tables) -> Iterator[Case]:
    """PAE has 2 MiB pages whatever CR4.PSE says."""
    offset = large_offset(tables.mode) + OFFSET
    for pse, (what, code), ring in product((0, at.CR4_PSE), tables.accesses.items(), (0, 3)):
        text = at_end(code.format(at.LARGE + offset))
        settings = {"cr4": tables.cr4 | pse}
        name = f"large/pse{int(pse > 0)}/{what}/ring{ring}"
        yield Case(name, text, ring, 2, tables.large(7 | PS) + landing(OFFSET), tables.large_watches, settings)
