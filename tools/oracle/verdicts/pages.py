"""Verdicts on page walks and page faults."""

from __future__ import annotations

from tools.oracle import layout as at
from tools.oracle.difference import Difference
from tools.oracle.verdicts.verdict import (
    ACCESSED,
    DIRTY,
    END,
    GP,
    PF,
    Says,
    Verdict,
    is_code,
    is_outcome,
    is_watch,
    only_flips,
    watched,
)

_TABLES = range(at.PD, at.STACK0 & ~0xFFF)
_LEAVES = range(at.PT_USER, at.PT_KERNEL)
_UPPER = (range(at.PD, at.PT_USER), range(at.PDPT, at.PML4 + 0x1000))


def _both_fault(d: Difference) -> bool:
    return d.vectors == (PF, PF)


def _update_fault(d: Difference) -> bool:
    """A read-modify-write that Bochs lets fault as a write, QEMU as a read."""
    first, second = d.reports
    if not first or not second or not _both_fault(d):
        return False
    if watched(d) in _LEAVES and d.flipped == ACCESSED:
        return True
    as_read = bool(first["error"] & 2 and not second["error"] & 2)
    pushed = is_watch(d) and only_flips(d, 3) and watched(d) > at.STACK0
    return as_read and (d.field in ("error", "cr2") or watched(d) in _TABLES or pushed)


def _upper_accessed(d: Difference) -> bool:
    upper = any(watched(d) in place for place in _UPPER)
    return PF in d.vectors and upper and d.flipped == ACCESSED


def _other_page(d: Difference) -> bool:
    """Whether the entry that differs maps another test page than the one that faults."""
    size = 8 if at.PD + 8 * (at.TEST >> 21) in d.case.watches else 4
    page = at.TEST + 0x1000 * ((watched(d) - at.PT_TEST) // size)
    return all(report is not None and report["cr2"] & ~0xFFF != page for report in d.reports)


def _first_half(d: Difference) -> bool:
    return _both_fault(d) and watched(d) in _LEAVES and _other_page(d) and only_flips(d, ACCESSED | DIRTY)


def _reserved_present(d: Difference) -> bool:
    return d.field == "error" and d.vectors == (PF, PF) and bool((d.first or 0) & 8) and d.flipped & ~3 == 0


VERDICTS = (
    Verdict(
        "pdpte-has-no-accessed-flag",
        Says.BOCHS,
        lambda d: d.case.family == "pdpte" and d.flipped == ACCESSED and watched(d) in range(at.PDPT, at.PDPT + 32),
        "QEMU sets A in the PDPTEs of PAE, where bit 5 is reserved (SDM vol. 3, 4.4.1 and 4.8).",
    ),
    Verdict(
        "pdptes-checked-on-load",
        Says.BOCHS,
        lambda d: is_outcome(d, GP, END) and d.case.family == "pdpte",
        "QEMU doesn't look at the PDPTEs when CR3 is loaded: #GP(0) for reserved bits in a present one "
        "(SDM vol. 3, 4.4.1).",
    ),
    Verdict(
        "accessed-on-the-way-to-a-fault",
        Says.EITHER,
        _upper_accessed,
        "Whether an entry that refers to a table gets A when the walk faults further down: it has been used for the "
        "translation, but there is no translation (SDM vol. 3, 4.8). QEMU sets it, Bochs doesn't, and processors may "
        "walk ahead of their instructions anyway.",
    ),
    Verdict(
        "accessed-half-of-a-fault",
        Says.EITHER,
        _first_half,
        "A and D of the first page when the second page of one access faults: nothing has been written, but the "
        "translation was for a write (SDM vol. 3, 4.8).",
    ),
    Verdict(
        "update-faults-as-write",
        Says.BOCHS,
        _update_fault,
        "QEMU reads before it asks whether it may write: W=0, A of a page that may not be written, and the second page "
        "before the first. An instruction that reads, modifies and writes asks for a write from the beginning: W=1 "
        "(SDM vol. 3, 4.7; as processors do).",
    ),
    Verdict(
        "reserved-is-present",
        Says.BOCHS,
        _reserved_present,
        "QEMU reports a reserved bit with P=0. RSVD=1 comes with P=1 only (SDM vol. 3, 4.7).",
    ),
    Verdict(
        "far-pointer-order",
        Says.EITHER,
        lambda d: d.field == "cr2" and is_code(d, "les", "lds", "lss", "lfs", "lgs") and d.flipped in (2, 4, 6, 8, 12),
        "Whether the selector or the offset of a far pointer is read first, nobody says.",
    ),
)
