"""A case: some code at ring 3 with registers and memory; the exception that ends it is what is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from hvproto.images.assembly import assemble_text
from tools.real_cpu.layout import CODE, CONSTANTS, STACK_TOP

REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
"""In machine encoding."""
EFLAGS = 0x202
"""Interrupts are on in user code."""
CF, PF, AF, ZF, SF, TF, DF, OF, NT, RF, AC = (1 << bit for bit in (0, 2, 4, 6, 7, 8, 10, 11, 14, 16, 18))
ARITHMETIC = CF | PF | AF | ZF | SF | OF
_CONSTANTS = "".join(f"{name} = {value:#x}\n" for name, value in CONSTANTS.items())
_END = "\nint3\n"
"""Behind every case: one that raises nothing itself ends here, with vector 3."""


@dataclass(frozen=True)
class Case:
    """``name`` is family/what; ``code`` is assembly text and may use the constants of the layout."""

    name: str
    code: str
    registers: Mapping[str, int] = field(default_factory=dict)
    """Those that aren't named get numbers of their own, RSP the middle of the stack."""
    eflags: int = 0
    """Flags to set besides IF."""
    bits: int = 64
    origin: int = CODE
    undefined: int = 0
    """Flags that the manual leaves undefined here."""

    @property
    def family(self) -> str:
        return self.name.split("/")[0]

    @cached_property
    def image(self) -> bytes:
        """The machine code, at ``origin``."""
        text = f"{_CONSTANTS}{self.code}{_END}"
        (segment,) = assemble_text(text, self.name, origin=self.origin, bits=self.bits).segments
        return segment.data + bytes(segment.size - len(segment.data))

    @property
    def first_registers(self) -> list[int]:
        """All general registers as the case begins, in machine encoding."""
        unknown = self.registers.keys() - set(REGISTERS)
        if unknown:
            raise ValueError(f"{self.name}: no such registers: {sorted(unknown)}")
        width = 32 if self.bits == 32 else 64
        return [
            self.registers.get(name, STACK_TOP if name == "rsp" else own_number(index)) % (1 << width)
            for index, name in enumerate(REGISTERS)
        ]


def own_number(index: int) -> int:
    """What a register holds that a case doesn't speak of: it isn't an address, and no two are alike."""
    return 0x0101_0101_0101_0101 * (index + 1) | 0x7100_0000_0000_0000


def named(family: str, bits: int, cases: Iterable[tuple[str, str] | tuple[str, str, dict[str, int]]]) -> list[Case]:
    """Cases of one family from rows of (what, code, registers)."""
    return [Case(f"{family}/{row[0]}", row[1], row[2] if len(row) == 3 else {}, bits=bits) for row in cases]
