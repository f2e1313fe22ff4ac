"""Every kind of selector and descriptor that segment loads, far transfers, gates and LAR can meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tools.oracle import layout as at
from tools.oracle.case import Patch
from tools.oracle.case import at as put
from tools.oracle.descriptors import (
    CALL286,
    CALL386,
    CODE_X,
    CODE_XR,
    CONFORMING_X,
    CONFORMING_XR,
    DATA_RO,
    DATA_RW,
    DATA_RW_DOWN,
    INT386,
    LDT_TYPE,
    TASK_GATE,
    TRAP386,
    TSS286,
    TSS386,
    TSS386_BUSY,
    Words,
    gate,
    segment,
)


@dataclass(frozen=True)
class Kind:
    """A selector (RPL 0), the descriptor it names if a case is to put one there, and settings that go with it."""

    name: str
    selector: int
    words: Words | None = None
    settings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def slot(self) -> int | None:
        """The address of the descriptor's doublewords, None if there are none."""
        if self.words is None:
            return None
        return (at.LDT if self.selector & 4 else at.GDT) + (self.selector & ~7)

    @property
    def patches(self) -> tuple[Patch, ...]:
        return () if self.words is None or self.slot is None else put(self.slot, self.words)

    @property
    def watches(self) -> tuple[int, ...]:
        """The high doubleword: accessed and busy bits."""
        return () if self.slot is None else (self.slot + 4,)


def _memory_segments() -> dict[str, Words]:
    found: dict[str, Words] = {}
    for dpl in (0, 1, 3):
        found[f"data-rw-{dpl}"] = segment(DATA_RW, dpl=dpl)
        found[f"code-xr-{dpl}"] = segment(CODE_XR, dpl=dpl)
        found[f"conforming-xr-{dpl}"] = segment(CONFORMING_XR, dpl=dpl)
    for dpl in (0, 3):
        found[f"data-ro-{dpl}"] = segment(DATA_RO, dpl=dpl)
        found[f"code-x-{dpl}"] = segment(CODE_X, dpl=dpl)
        found[f"conforming-x-{dpl}"] = segment(CONFORMING_X, dpl=dpl)
        found[f"absent-data-{dpl}"] = segment(DATA_RW, dpl=dpl, present=False)
        found[f"absent-ro-{dpl}"] = segment(DATA_RO, dpl=dpl, present=False)
        found[f"absent-code-{dpl}"] = segment(CODE_XR, dpl=dpl, present=False)
        found[f"absent-conforming-{dpl}"] = segment(CONFORMING_XR, dpl=dpl, present=False)
    found["data-down-3"] = segment(DATA_RW_DOWN, dpl=3, limit=0xFFF)
    return found


def _system_descriptors() -> dict[str, Words]:
    found = {
        "tss-available": segment(TSS386, base=at.TSS_OTHER, limit=0x67, dpl=3, flags=0),
        "tss-busy": segment(TSS386_BUSY, base=at.TSS_OTHER, limit=0x67, dpl=3, flags=0),
        "ldt": segment(LDT_TYPE, base=at.LDT, limit=at.LDT_LIMIT, dpl=3, flags=0),
        "tss-286": segment(TSS286, base=at.TSS_286, limit=0x2B, dpl=3, flags=0),
        "call-gate": gate(CALL386, at.KCODE, at.LANDING, dpl=3),
        "call-gate-286": gate(CALL286, at.KCODE, at.LANDING, dpl=3),
        "task-gate": gate(TASK_GATE, at.TSS_OTHER_SELECTOR, 0, dpl=3),
        "interrupt-gate": gate(INT386, at.KCODE, at.LANDING, dpl=3),
        "trap-gate": gate(TRAP386, at.KCODE, at.LANDING, dpl=3),
    }
    found |= {f"reserved-{kind:x}": segment(kind, dpl=3) for kind in (0, 8, 10, 13)}
    found["absent-ldt"] = segment(LDT_TYPE, base=at.LDT, limit=at.LDT_LIMIT, dpl=3, present=False, flags=0)
    found["absent-tss"] = segment(TSS386, base=at.TSS_OTHER, limit=0x67, dpl=3, present=False, flags=0)
    return found


def _special() -> list[Kind]:
    no_ldt = {"ldtr": 0}
    data, code = segment(DATA_RW, dpl=3), segment(CODE_XR, dpl=3)
    return [
        Kind("null", 0),
        Kind("beyond", at.BEYOND),
        Kind("last", 0xFFF8),
        Kind("cut-off", at.T0, data, {"gdt_limit": at.T0 + 6}),
        Kind("just-inside", at.T0, data, {"gdt_limit": at.T0 + 7}),
        Kind("ldt-data-3", at.L0 | 8, data),
        Kind("ldt-first", at.L0, data),
        Kind("ldt-code-3", at.L0 | 8, code),
        Kind("ldt-code-0", at.L0 | 8, segment(CODE_XR)),
        Kind("ldt-absent", at.L0 | 8, segment(DATA_RW, dpl=3, present=False)),
        Kind("ldt-beyond", at.LDT_LIMIT + 1 | 4),
        Kind("no-ldt", at.L0 | 8, data, no_ldt),
    ]


MEMORY = tuple(Kind(name, at.T0, words) for name, words in _memory_segments().items())
SYSTEM = tuple(Kind(name, at.T0, words) for name, words in _system_descriptors().items())
SPECIAL = tuple(_special())
ALL = SPECIAL + MEMORY + SYSTEM
