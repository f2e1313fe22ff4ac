"""All cases, by family."""

from __future__ import annotations

from functools import cache

from tools.real_cpu.case import Case
from tools.real_cpu.cases import (
    accesses,
    alignment,
    canonical,
    compatibility,
    crossing,
    far,
    interrupts,
    invalid,
    limits,
    selectors,
    stacks,
    strings,
)

_FAMILIES = (
    accesses, crossing, strings, stacks, canonical, alignment, interrupts, invalid, selectors, far, compatibility,
    limits,
)  # fmt: skip


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(case for family in _FAMILIES for case in family.cases())
