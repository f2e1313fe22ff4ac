"""Where the oracles disagree: who is right, and what the manual says about it.

SDM is Intel's Software Developer's Manual (volume and section, as numbered in 2023), APM is AMD's Architecture
Programmer's Manual.
"""

from __future__ import annotations

from tools.oracle.verdicts import debugging, delivery, instructions, long_mode, pages
from tools.oracle.verdicts.verdict import Says, Verdict

__all__ = ["VERDICTS", "Says", "Verdict"]

VERDICTS: tuple[Verdict, ...] = (
    *delivery.VERDICTS,
    *pages.VERDICTS,
    *instructions.VERDICTS,
    *debugging.VERDICTS,
    *long_mode.VERDICTS,
)
