"""Every kind of selector and descriptor of long mode."""

from __future__ import annotations

from tools.oracle import layout as at
from tools.oracle.descriptors import (
    CALL286,
    CALL386,
    CODE_X,
    CODE_XR,
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
    long_gate,
    long_system,
    segment,
)
from tools.oracle.families.kinds import Kind

L, D, BOTH = 2, 4, 6
"""The flags of code segments: 64-bit, 32-bit, and both, which is reserved."""


def _memory_segments() -> dict[str, Words]:
    found: dict[str, Words] = {}
    for dpl in (0, 1, 3):
        found[f"data-rw-{dpl}"] = segment(DATA_RW, dpl=dpl)
        found[f"code64-{dpl}"] = segment(CODE_XR, dpl=dpl, flags=L)
        found[f"conforming64-{dpl}"] = segment(CONFORMING_XR, dpl=dpl, flags=L)
    for dpl in (0, 3):
        found[f"code32-{dpl}"] = segment(CODE_XR, dpl=dpl, flags=D)
        found[f"code-both-{dpl}"] = segment(CODE_XR, dpl=dpl, flags=BOTH)
        found[f"data-ro-{dpl}"] = segment(DATA_RO, dpl=dpl)
        found[f"absent-data-{dpl}"] = segment(DATA_RW, dpl=dpl, present=False)
        found[f"absent-code64-{dpl}"] = segment(CODE_XR, dpl=dpl, present=False, flags=L)
    found["code64-x-3"] = segment(CODE_X, dpl=3, flags=L)
    found["conforming32-0"] = segment(CONFORMING_XR, flags=D)
    found["absent-conforming64-0"] = segment(CONFORMING_XR, present=False, flags=L)
    found["data-down-3"] = segment(DATA_RW_DOWN, dpl=3, limit=0xFFF)
    found["data-based-3"] = segment(DATA_RW, dpl=3, base=0x12345000)
    return found


def _system_descriptors() -> dict[str, Words]:
    found = {
        "tss-available": long_system(TSS386, at.TSS, at.TSS_LIMIT, dpl=3),
        "tss-busy": long_system(TSS386_BUSY, at.TSS, at.TSS_LIMIT, dpl=3),
        "ldt": long_system(LDT_TYPE, at.LDT, at.LDT_LIMIT, dpl=3),
        "absent-ldt": long_system(LDT_TYPE, at.LDT, at.LDT_LIMIT, dpl=3, present=False),
        "absent-tss": long_system(TSS386, at.TSS, at.TSS_LIMIT, dpl=3, present=False),
        "call-gate": long_gate(CALL386, at.KCODE, at.LANDING, dpl=3),
    }
    codes = {"tss-286": TSS286, "call-gate-286": CALL286, "task-gate": TASK_GATE}
    codes |= {"interrupt-gate": INT386, "trap-gate": TRAP386}
    codes |= {f"reserved-{kind:x}": kind for kind in (0, 3, 6, 8, 10, 13)}
    return found | {name: long_gate(kind, at.KCODE, at.LANDING, dpl=3) for name, kind in codes.items()}


def _special() -> list[Kind]:
    data, code = segment(DATA_RW, dpl=3), segment(CODE_XR, dpl=3, flags=L)
    return [
        Kind("null", 0),
        Kind("beyond", at.BEYOND),
        Kind("last", 0xFFF8),
        Kind("ldt-data-3", at.L0 | 8, data),
        Kind("ldt-first", at.L0, data),
        Kind("ldt-code64-3", at.L0 | 8, code),
        Kind("ldt-code64-0", at.L0 | 8, segment(CODE_XR, flags=L)),
        Kind("ldt-absent", at.L0 | 8, segment(DATA_RW, dpl=3, present=False)),
        Kind("ldt-beyond", at.LDT_LIMIT + 1 | 4),
        Kind("no-ldt", at.L0 | 8, data, {"ldtr": 0}),
    ]


MEMORY = tuple(Kind(name, at.T0, words) for name, words in _memory_segments().items())
SYSTEM = tuple(Kind(name, at.T0, words) for name, words in _system_descriptors().items())
SPECIAL = tuple(_special())
ALL = SPECIAL + MEMORY + SYSTEM
