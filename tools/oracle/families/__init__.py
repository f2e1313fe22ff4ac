"""The families of cases, by mode."""

from __future__ import annotations

from tools.oracle.case import Case
from tools.oracle.families import debug, flags, gates, instructions, paging, ports, segments, transfers


def legacy() -> list[Case]:
    """32-bit protected mode with 2-level paging."""
    found = [*segments.cases(), *transfers.cases(), *gates.cases(), *paging.legacy()]
    found += [*flags.cases(), *debug.cases(), *instructions.cases(), *ports.cases()]
    return found
