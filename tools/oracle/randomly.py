"""Batches of cases drawn at random (a Hypothesis strategy): short sequences of instructions from a table of safe ones,
with random rings, flags, page rights, descriptors and gates.

Safe are instructions whose results and flags the manual defines completely, and that can't lose a machine. What the
oracles are known not to have (segment rights on use, limits, #AC) is left to the families.
"""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from tools.oracle import layout as at
from tools.oracle.case import Case, Patch, at_end, described, gated
from tools.oracle.case import at as put
from tools.oracle.descriptors import CODE_XR, CONFORMING_XR, DATA_RO, DATA_RW, INT386, TRAP386, gate, long_gate, segment
from tools.oracle.families.paging import Tables
from tools.oracle.tables import LONG_CODE, NX, Mode

SIZE = 400
"""Cases in a batch."""
_MEMORY = (
    "mov {r}, [{m}]", "mov [{m}], {r}", "add [{m}], {r}", "add {r}, [{m}]", "sub dword ptr [{m}], {i}",
    "adc [{m}], {r}", "sbb {r}, [{m}]", "cmp [{m}], {r}", "cmp dword ptr [{m}], {i}", "inc dword ptr [{m}]",
    "dec word ptr [{m}]", "neg dword ptr [{m}]", "not byte ptr [{m}]", "xchg [{m}], {r}", "xadd [{m}], {r}",
    "lock add [{m}], {r}", "cmpxchg [{m}], {r}", "mov word ptr [{m}], {w}", "movzx {r}, byte ptr [{m}]",
    "movsx {r}, word ptr [{m}]", "setc byte ptr [{m}]", "cmovz {r}, [{m}]", "push {p} ptr [{m}]", "pop {p} ptr [{m}]",
    "mov byte ptr [{m}], 0xcd", "lea {r}, [{m}]",
)  # fmt: skip
_REGISTERS = (
    "mov {r}, {i}", "mov {r}, {s}", "add {r}, {s}", "sub {r}, {s}", "adc {r}, {i}", "sbb {r}, {s}", "cmp {r}, {s}",
    "inc {r}", "dec {r}", "neg {r}", "not {r}", "xadd {r}, {s}", "bswap {r}", "cmovc {r}, {s}", "movzx {r}, ax", "stc",
    "clc", "cmc", "cld", "std", "lahf", "nop", "cbw", "cwde",
)  # fmt: skip
_STACK = ("push {q}", "pop {q}", "push {i}", "call 1f\n1: nop", "push {q}\nret", "jc 1f\ninc {r}\n1: nop", "jmp {t}")
_STRINGS = ("rep stosd", "rep movsd", "lodsd", "stosb", "movsw", "repne scasb", "rep lodsb")
_SYSTEM = (
    "cli", "sti", "hlt!", "clts", "int {g}", "int3", "int 14", "ud2", "out 0x88, al", "mov {x}, cr0", "invlpg [{m}]",
    "str {w}", "mov fs, {w}", "mov gs, {w}", "mov ss, {w}", "lar {r}, {s}\n!", "verr {w}", "verw {w}", "lldt {w}!",
    "smsw {w}!",
)  # fmt: skip
_NAMES = ("eax", "ecx", "edx", "ebx", "esi", "edi")
_ENDS = (0x100, 0xF00)
_RIGHTS = (0, 1, 3, 5, 7, 7, 7, 0x27, 0x67)
_FLAGS = (0, 1, 0x40, 0x200, 0x400, 0x800, 0x1000, 0x3000, 0x40000, 0x200000, 0x81)


class _Draw:
    """One case's random choices."""

    def __init__(self, random: Random, mode: Mode) -> None:
        self.random, self.mode, self.tables = random, mode, Tables(mode)
        self.long = mode is Mode.LONG
        self.ring = random.choice((0, 3, 3, 3, 1))

    def address(self) -> int:
        """Somewhere in the three test pages, often at their edges."""
        page, offset = self.random.randrange(3), self.random.choice((0, 0x10, 0x800, 0xFE0, 0xFFC, 0xFFD, 0xFFE, 0xFFF))
        return at.TEST + 0x1000 * page + offset

    def target(self) -> int:
        """Where a jump leads to: an INT END on a test page, where no data are, or the landing."""
        return self.random.choice((at.LANDING, at.TEST + 0x1000 * self.random.randrange(3) + self.random.choice(_ENDS)))

    def selector(self) -> int:
        slots = (at.T0, at.T1, at.T2, at.T3, at.T0, at.T1)
        return self.random.choice((0, at.KDATA, at.UDATA, at.KCODE, at.UCODE, at.BEYOND, *slots)) | self.random.choice(
            (0, 3)
        )

    def instruction(self) -> str:
        table = self.random.choice((_MEMORY, _MEMORY, _MEMORY, _REGISTERS, _REGISTERS, _STACK, _STRINGS, _SYSTEM))
        form = self.random.choice([text for text in table if "!" not in text])
        register, second = (self.random.choice(_NAMES) for _ in range(2))
        wide = second.replace("e", "r", 1) if self.long else second
        number = self.random.choice((1, 2, 0x7F, -1, 0x12345678, self.random.getrandbits(31)))
        before = f"mov {second}, {self.selector():#x}\n" if "{w}" in form and form != "mov word ptr [{m}], {w}" else ""
        if table is _STRINGS:
            # Pages that the case doesn't map aren't the same on all machines.
            count = self.random.choice((0, 1, 2, 5))
            before = f"mov esi, {self.address():#x}\nmov edi, {self.address():#x}\nmov ecx, {count}\n"
        if "{t}" in form:
            before, form = f"mov {second}, {self.target():#x}\n", "jmp {q}"
        if form == "push {q}\nret":
            before = f"mov {second}, {self.target():#x}\n"
        return before + form.format(
            r=register, s=second, q=wide, x=wide, w=second[1:], m=f"{self.address():#x}", i=number, t="",
            g=f"{at.GATE:#x}", p="qword" if self.long else "dword",
        )  # fmt: skip

    def pages(self) -> tuple[Patch, ...]:
        rights = [self.random.choice(_RIGHTS) for _ in range(4)]
        if self.mode is not Mode.LEGACY:
            rights = [value | (NX if self.random.random() < 0.15 else 0) for value in rights]
        directory = self.tables.directory(rights[3] if self.random.random() < 0.2 else 7)
        found = directory + tuple(patch for index in range(3) for patch in self.tables.page(index, rights[index]))
        landing = tuple(
            patch for page in range(3) for offset in _ENDS
            for patch in put(at.TEST_FRAMES + 0x1000 * page + offset, (at.END << 8 | 0xCD,))
        )  # fmt: skip
        return found + landing

    def descriptors(self) -> tuple[Patch, ...]:
        found: tuple[Patch, ...] = ()
        for slot in (at.T0, at.T1, at.T2, at.T3):
            kind = self.random.choice((DATA_RW, DATA_RW, DATA_RO, CODE_XR, CONFORMING_XR))
            flags = LONG_CODE if self.long and kind & 8 else 4
            words = segment(kind, dpl=self.random.choice((0, 1, 3, 3)), present=self.random.random() < 0.8, flags=flags)
            found += described(slot, words)
        return found + gated(at.GATE, self.gate())

    def gate(self) -> tuple[int, ...]:
        kind = self.random.choice((INT386, TRAP386))
        target = self.random.choice((at.KCODE, at.KCODE, at.CONFORMING, at.CODE1, at.T0, at.UDATA))
        make = long_gate if self.long else gate
        present = self.random.random() < 0.9
        return make(kind, target, at.LANDING, dpl=self.random.choice((0, 3, 3)), present=present)

    def case(self, name: str) -> Case:
        code = "\n".join(self.instruction() for _ in range(self.random.randint(1, 5)))
        flags = 2 | sum({self.random.choice(_FLAGS) for _ in range(3)}) | (0x100 if self.random.random() < 0.1 else 0)
        if "sti" in code:
            flags &= ~0x100  # the families have the step behind it, on which the oracles disagree
        registers = {
            name: self.random.choice((0, 1, 3, self.address(), self.random.getrandbits(32))) for name in _NAMES
        }
        settings = registers | {"cr0": at.BASE_CR0 | self.random.choice((0, at.CR0_WP))}
        watches = (*self.tables.watches, *(self.tables.pte + self.tables.size * index for index in (1, 2)))
        watches += tuple(at.GDT + slot + 4 for slot in (at.T0, at.T1, at.T2, at.T3))
        watches += tuple(at.TEST_FRAMES + 0x1000 * page + offset for page in range(3) for offset in (0, 0x800, 0xFFC))
        patches = self.pages() + self.descriptors()
        return Case(name, at_end(code), self.ring, flags & 0x3FFFFF, patches, watches, settings)


def batch(seed: int, mode: Mode, size: int = SIZE) -> list[Case]:
    """The cases that a number stands for."""
    random = Random(seed)
    return [_Draw(random, mode).case(f"random/{seed:x}/{index}") for index in range(size)]


def cases(mode: Mode) -> st.SearchStrategy[list[Case]]:
    """Batches; they don't shrink: a message names the cases that differ, each of which is short."""
    return st.integers(0, (1 << 32) - 1).map(lambda seed: batch(seed, mode))
