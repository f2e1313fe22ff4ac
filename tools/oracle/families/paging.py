"""Page walks: every combination of rights, sizes and reserved bits, accesses of every kind, A and D bits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end, bytes_at
from tools.oracle.case import at as put
from tools.oracle.tables import BASE_CR4, BASE_EFER, PS, Mode, large_offset

ACCESSES = {
    "read": "mov eax, [{:#x}]",
    "write": "mov [{:#x}], eax",
    "update": "add dword ptr [{:#x}], 1",
    "fetch": "mov eax, {:#x}\njmp eax",
}
OTHER_ACCESSES = {
    "xchg": "xchg [{:#x}], eax", "lock": "lock inc dword ptr [{:#x}]", "cmpxchg": "cmpxchg [{:#x}], ecx",
    "bts": "bts dword ptr [{:#x}], 1", "bt": "bt dword ptr [{:#x}], 1", "cmp": "cmp dword ptr [{:#x}], 1",
    "not": "not dword ptr [{:#x}]", "rol": "rol dword ptr [{:#x}], 1", "xadd": "xadd [{:#x}], ecx",
    "setz": "setz byte ptr [{:#x}]", "push": "push dword ptr [{:#x}]", "pop": "pop dword ptr [{:#x}]",
    "cmpxchg8b": "cmpxchg8b [{:#x}]", "neg8": "neg byte ptr [{:#x}]", "inc16": "inc word ptr [{:#x}]",
    "adc": "adc dword ptr [{:#x}], 1", "shld": "shld dword ptr [{:#x}], eax, 3", "sgdt": "sgdt [{:#x}]",
    "jmp": "jmp dword ptr [{:#x}]", "call": "call dword ptr [{:#x}]", "test": "test dword ptr [{:#x}], 1",
    "arpl": "arpl [{:#x}], ax", "str": "str word ptr [{:#x}]", "fst": "fninit\nfld1\nfst dword ptr [{:#x}]",
    "fld": "fninit\nfld dword ptr [{:#x}]", "verr": "verr word ptr [{:#x}]", "bound": "bound eax, [{:#x}]",
    "sub0": "sub dword ptr [{:#x}], 0", "or0": "or byte ptr [{:#x}], 0", "shl0": "shl dword ptr [{:#x}], 0",
    "les": "les eax, [{:#x}]", "movsx": "movsx eax, byte ptr [{:#x}]", "imul": "imul eax, [{:#x}]",
}  # fmt: skip
_NOT_IN_LONG_MODE = ("arpl", "bound", "les")
LONG_ACCESSES = ACCESSES | {"fetch": "mov eax, {:#x}\njmp rax"}
OTHER_LONG_ACCESSES = {what: code for what, code in OTHER_ACCESSES.items() if what not in _NOT_IN_LONG_MODE} | {
    "push": "push qword ptr [{:#x}]", "pop": "pop qword ptr [{:#x}]", "jmp": "jmp qword ptr [{:#x}]",
    "call": "call qword ptr [{:#x}]", "cmpxchg16b": "cmpxchg16b [{:#x}]", "inc64": "inc qword ptr [{:#x}]",
    "movaps": "movaps [{:#x}], xmm0", "movnti": "movnti [{:#x}], eax",
}  # fmt: skip
STRINGS = {"movs": "rep movsd", "stos": "rep stosd", "lods": "lodsd", "scas": "repne scasd", "cmps": "repe cmpsd"}
_RIGHTS = (0, 1, 3, 5, 7)
"""Absent, and the four combinations of W and U with P."""
OFFSET = 0x804


class Tables:
    """Where the entries are that map the test pages, in one mode."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.size = 4 if mode is Mode.LEGACY else 8
        self.span = 0x1000 * (4096 // self.size)
        self.pde = at.PD + self.size * (at.TEST // self.span)
        self.large_pde = at.PD + self.size * (at.LARGE // self.span)
        self.large_base = at.TEST_FRAMES // self.span * self.span
        self.pte = at.PT_TEST
        self.watches = (self.pde, self.pte)
        self.large_watches = (self.large_pde,)
        self.cr4 = BASE_CR4[mode] | (at.CR4_PSE if mode is Mode.LEGACY else 0)
        self.efer = BASE_EFER[mode] & ~at.EFER_NXE

        long = mode is Mode.LONG
        self.accesses = LONG_ACCESSES if long else ACCESSES
        self.other_accesses = OTHER_LONG_ACCESSES if long else OTHER_ACCESSES

    def pointer(self, register: str) -> str:
        """A 32-bit register's name, or that of the whole register in long mode."""
        return register.replace("e", "r", 1) if self.mode is Mode.LONG else register

    def entry(self, address: int, value: int) -> tuple[tuple[int, int], ...]:
        return put(address, (value & 0xFFFFFFFF, value >> 32)[: self.size // 4])

    def page(self, index: int, rights: int, *, frame: int | None = None) -> tuple[tuple[int, int], ...]:
        physical = at.TEST_FRAMES + 0x1000 * (index if frame is None else frame)
        return self.entry(self.pte + self.size * index, physical | rights)

    def directory(self, rights: int) -> tuple[tuple[int, int], ...]:
        return self.entry(self.pde, at.PT_TEST | rights)

    def large(self, rights: int) -> tuple[tuple[int, int], ...]:
        return self.entry(self.large_pde, self.large_base | PS | rights)


def landing(offset: int) -> tuple[tuple[int, int], ...]:
    return bytes_at(at.TEST_FRAMES + offset, bytes([0xCD, at.END]))


def rights(tables: Tables) -> Iterator[Case]:
    """P, W and U of PDE and PTE, four accesses, two rings, WP."""
    combinations = [(0, 7), *product(_RIGHTS[1:], _RIGHTS)]
    for (upper, lower), (what, code), ring, wp in product(
        combinations, tables.accesses.items(), (0, 3), (0, at.CR0_WP)
    ):
        patches = tables.directory(upper) + tables.page(0, lower) + landing(OFFSET)
        name = f"walk/{upper}-{lower}/{what}/ring{ring}/wp{int(wp > 0)}"
        text = at_end(code.format(at.TEST + OFFSET))
        yield Case(name, text, ring, 2, patches, tables.watches, {"cr0": at.BASE_CR0 | wp})


def large_pages(tables: Tables) -> Iterator[Case]:
    offset = large_offset(tables.mode) + OFFSET
    for given, (what, code), ring, wp in product(_RIGHTS, tables.accesses.items(), (0, 3), (0, at.CR0_WP)):
        text = at_end(code.format(at.LARGE + offset))
        settings = {"cr0": at.BASE_CR0 | wp, "cr4": tables.cr4}
        name = f"large/{given}/{what}/ring{ring}/wp{int(wp > 0)}"
        yield Case(name, text, ring, 2, tables.large(given) + landing(OFFSET), tables.large_watches, settings)


def instructions(tables: Tables) -> Iterator[Case]:
    """Which access each instruction's fault reports: absent, read-only and user pages."""
    for given, (what, code), ring in product((0, 5, 7), (tables.accesses | tables.other_accesses).items(), (0, 3)):
        patches = tables.page(0, given) + landing(OFFSET)
        # A one for the bounds, the comparison and so on to go through where nothing faults.
        patches += put(at.TEST_FRAMES + 0x810, (1, 1))
        settings = {"cr0": at.BASE_CR0 | at.CR0_WP, "eax": 1, "ecx": 2, "edx": 3}
        text = at_end(code.format(at.TEST + 0x810))
        if what in ("jmp", "call", "fetch"):
            patches += (
                put(at.TEST_FRAMES + 0x810, (at.LANDING,))
                if what != "fetch"
                else bytes_at(at.TEST_FRAMES + 0x810, bytes([0xCD, at.END]))
            )
        yield Case(f"access/{what}/{given}/ring{ring}", text, ring, 2, patches, tables.watches, settings)
    for (what, code), first, second, ring in product(STRINGS.items(), (0, 5, 7), (0, 5, 7), (0, 3)):
        patches = tables.page(0, first) + tables.page(1, second)
        settings = {"cr0": at.BASE_CR0 | at.CR0_WP, "eax": 1, "ecx": 4, "esi": at.TEST + 0xFF8, "edi": at.TEST + 0xFF8}
        watches = (*tables.watches, tables.pte + tables.size)
        yield Case(f"access/{what}/{first}-{second}/ring{ring}", at_end(code), ring, 2, patches, watches, settings)


_CROSSING = {
    "push": "mov esp, {:#x} + 4\npush eax",
    "word": "mov [{:#x} + 1], ax",
    "xchg": "xchg [{:#x}], eax",
    "double": "fninit\nfld1\nfst qword ptr [{:#x}]",
    "pop": "mov ecx, esp\nmov esp, {:#x}\npop eax\nmov esp, ecx",
}
_LONG_CROSSING = _CROSSING | {
    "push": "mov esp, {:#x} + 8\npush rax",
    "pop": "mov rcx, rsp\nmov esp, {:#x}\npop rax\nmov rsp, rcx",
    "quad": "mov [{:#x}], rax",
}


def crossing(tables: Tables) -> Iterator[Case]:
    """Accesses that lie across two pages of different rights."""
    codes = {what: tables.accesses[what] for what in ("read", "write", "update")}
    codes |= _LONG_CROSSING if tables.mode is Mode.LONG else _CROSSING
    for (what, code), first, second, ring in product(codes.items(), (0, 1, 5, 7), (0, 1, 5, 7), (0, 3)):
        if ring == 0 and ((what == "push" and (first, second) != (7, 7)) or (what == "pop" and 0 in (first, second))):
            continue  # A double fault, or a frame that can't be read.
        patches = tables.page(0, first) + tables.page(1, second)
        watches = (*tables.watches, tables.pte + tables.size, at.TEST_FRAMES + 0xFFC, at.TEST_FRAMES + 0x1000)
        settings = {"cr0": at.BASE_CR0 | at.CR0_WP}
        text = at_end(code.format(at.TEST + 0xFFE))
        yield Case(f"crossing/{what}/{first}-{second}/ring{ring}", text, ring, 2, patches, watches, settings)
    for first, second, ring, split in product((0, 1, 7), (0, 1, 7), (0, 3), (1, 2, 4, 5)):
        # B8 11 22 33 44: mov eax, 0x44332211, with so many bytes on the first page; then INT END on the second.
        data = bytes([0xB8, 0x11, 0x22, 0x33, 0x44, 0xCD, at.END])
        patches = tables.page(0, first) + tables.page(1, second)
        patches += bytes_at(at.TEST_FRAMES + 0xFF8, b"\x90" * (8 - split) + data[:split])
        patches += bytes_at(at.TEST_FRAMES + 0x1000, data[split:])
        both = (*tables.watches, tables.pte + tables.size)
        text = f"mov eax, {at.TEST + 0x1000 - split:#x}\njmp {tables.pointer('eax')}"
        yield Case(f"crossing/fetch/{first}-{second}/split{split}/ring{ring}", text, ring, 2, patches, both)
    for first, second, ring in product((0, 7), (0, 7), (0, 3)):
        patches = tables.page(0, first) + tables.page(1, second) + bytes_at(at.TEST_FRAMES + 0xFF8, b"\x90" * 8)
        patches += bytes_at(at.TEST_FRAMES + 0x1000, bytes([0xCD, at.END]))
        text = f"mov eax, {at.TEST + 0xFFC:#x}\njmp {tables.pointer('eax')}"
        yield Case(f"crossing/run/{first}-{second}/ring{ring}", text, ring, 2, patches, tables.watches)


def accessed(tables: Tables) -> Iterator[Case]:
    """A and D bits that are there before; entries that change without INVLPG; PWT, PCD, G, AVL."""
    for upper, lower, (what, code) in product((7, 0x27), (7, 0x27, 0x67, 0x47), tables.accesses.items()):
        patches = tables.directory(upper) + tables.page(0, lower) + landing(OFFSET)
        text = at_end(code.format(at.TEST + OFFSET))
        yield Case(f"bits/{upper:x}-{lower:x}/{what}", text, 3, 2, patches, tables.watches)
    for bits, (what, code), ring in product((0x8, 0x10, 0x80, 0x100, 0xE00), tables.accesses.items(), (0, 3)):
        patches = tables.page(0, 7 | bits) + landing(OFFSET)
        text = at_end(code.format(at.TEST + OFFSET))
        yield Case(f"bits/pte-{bits:x}/{what}/ring{ring}", text, ring, 2, patches, tables.watches)
        patches = tables.directory(7 | bits & ~0x80) + landing(OFFSET)
        yield Case(f"bits/pde-{bits:x}/{what}/ring{ring}", text, ring, 2, patches, tables.watches)
    low, ecx = tables.pte, tables.pointer("ecx")
    flush = {"none": "", "invlpg": f"invlpg [{at.TEST:#x}]\n", "cr3": f"mov {ecx}, cr3\nmov cr3, {ecx}\n"}
    for name, code in flush.items():
        if name != "none":
            text = f"mov eax, [{at.TEST:#x}]\nmov dword ptr [{low:#x}], 0\n{code}mov eax, [{at.TEST:#x}]"
            yield Case(f"bits/stale-{name}", at_end(text), 0, 2, (), tables.watches)
            text = f"mov [{at.TEST:#x}], eax\nand dword ptr [{low:#x}], 0xffffff9f\n{code}mov [{at.TEST:#x}], eax"
            yield Case(f"bits/again-{name}", at_end(text), 0, 2, (), tables.watches)
        text = f"mov dword ptr [{low:#x}], 0\nmov eax, [{at.TEST:#x}]"
        yield Case(f"bits/fresh-{name}", at_end(text), 0, 2, (), tables.watches)


def reserved_legacy(tables: Tables) -> Iterator[Case]:
    """Large pages without PSE, bits 13 to 21 of a large PDE."""
    offset = large_offset(tables.mode) + OFFSET
    for bit, (what, code), ring in product((21,), tables.accesses.items(), (0, 3)):
        for given in (7, 6, 5, 1):
            patches = tables.large(given | 1 << bit) + landing(OFFSET)
            text = at_end(code.format(at.LARGE + offset))
            name = f"reserved/large-bit{bit}/{given}/{what}/ring{ring}"
            yield Case(name, text, ring, 2, patches, tables.large_watches, {"cr4": at.CR4_PSE})
    for (what, code), ring in product(tables.accesses.items(), (0, 3)):
        # Without CR4.PSE, PS is ignored and the PDE names a table: the test page table.
        patches = tables.entry(tables.large_pde, at.PT_TEST | PS | 7) + landing(OFFSET)
        text = at_end(code.format(at.LARGE + OFFSET))
        yield Case(
            f"reserved/ps-without-pse/{what}/ring{ring}", text, ring, 2, patches, (*tables.large_watches, tables.pte)
        )


def common(tables: Tables) -> Iterator[Case]:
    """What all modes have."""
    for family in (rights, large_pages, instructions, crossing, accessed):
        yield from family(tables)


def legacy() -> Iterator[Case]:
    """All of 2-level paging."""
    tables = Tables(Mode.LEGACY)
    yield from common(tables)
    yield from reserved_legacy(tables)
