"""What a verdict is, and the words that its predicates are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from tools.oracle.difference import OUTCOME, Difference

RF, VM, VIF, VIP, TF = 0x10000, 0x20000, 0x80000, 0x100000, 0x100
ACCESSED, DIRTY = 0x20, 0x40
DE, DB, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF, MF, AC, XM = 0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 19
END = 0x30


def is_canonical(address: int) -> bool:
    """Whether bits 47 to 63 of a linear address are equal."""
    return (address + (1 << 47)) % (1 << 64) < 1 << 48


class Says(Enum):
    """Whom the manual gives right."""

    BOCHS = auto()
    QEMU = auto()
    EITHER = auto()  # undefined, or up to the model: nobody is held to it


@dataclass(frozen=True)
class Verdict:
    """A group of differences with one cause. The first verdict that applies counts."""

    key: str
    says: Says
    applies: Callable[[Difference], bool]
    reason: str
    """What the machine that errs does, and the section that says so."""


def is_outcome(difference: Difference, first: int | None, *second: int | None) -> bool:
    """Whether the first ends with this vector, and the other with one of these (any, if none are given)."""
    bochs, qemu = difference.vectors
    return difference.field == OUTCOME and bochs == first and (not second or qemu in second)


def only_flips(difference: Difference, bits: int) -> bool:
    """Whether a field differs in some of these bits and no others."""
    return difference.field != OUTCOME and difference.flipped & ~bits == 0


def is_watch(difference: Difference) -> bool:
    """Whether the field is a watched doubleword."""
    return difference.field[0] == "w" and difference.field[1:].isdigit()


def watched(difference: Difference) -> int:
    """The address of the watched doubleword that differs; 0 for other fields."""
    return difference.case.watches[int(difference.field[1:])] if is_watch(difference) else 0


def is_code(difference: Difference, *words: str) -> bool:
    """Whether one of the words begins an instruction of the case."""
    return any(line.strip().startswith(words) for line in difference.case.code.splitlines())
