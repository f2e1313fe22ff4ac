"""The families of cases, by mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from tools.oracle.case import Case
from tools.oracle.families import (
    debug,
    flags,
    gates,
    instructions,
    limits,
    long_canonical,
    long_code,
    long_gates,
    long_levels,
    long_syscalls,
    long_system,
    long_transfers,
    paging,
    paging_wide,
    ports,
    segments,
    sysenter,
    transfers,
    virtual8086,
)
from tools.oracle.tables import Mode


def legacy() -> list[Case]:
    """32-bit protected mode with 2-level paging."""
    return [*_protected(), *paging.legacy(), *limits.cases(), *sysenter.cases(), *virtual8086.cases()]


def _protected() -> list[Case]:
    found = [*segments.cases(), *transfers.cases(), *gates.cases()]
    return [*found, *flags.cases(), *debug.cases(), *instructions.cases(), *ports.cases()]


def pae() -> list[Case]:
    """32-bit protected mode with PAE: all of paging, and a sample of what doesn't depend on it."""
    tables = paging.Tables(Mode.PAE)
    found = [*paging.common(tables), *paging_wide.execute_disable(tables), *paging_wide.reserved(tables)]
    found += [*paging_wide.large_without_pse(tables), *paging_wide.pdptes()]
    others = [case for case in _protected() if not {"cr3", "cr4", "efer"} & case.settings.keys()]
    return found + [case for case in others if "cr3" not in case.code and "cr4" not in case.code][::20]


def long() -> list[Case]:
    """Long mode."""
    tables = paging.Tables(Mode.LONG)
    found = [*paging.common(tables), *paging_wide.execute_disable(tables), *paging_wide.reserved(tables)]
    found += [*paging_wide.large_without_pse(tables), *long_levels.cases()]
    found += [*long_canonical.cases(), *long_gates.cases()]
    found += [*long_transfers.cases(), *long_syscalls.cases(), *long_system.cases(), *long_code.cases()]
    return found


def _distinct(cases: Callable[[], list[Case]]) -> Callable[[], list[Case]]:
    """Without the cases that come out twice, because two values are the same where only some of their bits count."""

    @cache
    def found() -> tuple[Case, ...]:
        known: dict[str, Case] = {}
        for case in cases():
            if known.setdefault(case.name, case) != case:
                raise ValueError(f"two cases of the name {case.name}")
        return tuple(known.values())

    return lambda: list(found())


BY_MODE: Mapping[Mode, Callable[[], list[Case]]] = {
    Mode.LEGACY: _distinct(legacy),
    Mode.PAE: _distinct(pae),
    Mode.LONG: _distinct(long),
}
