"""The processor against Bochs and QEMU, case by case (`tools/oracle`).

Bochs and QEMU are laid side by side first; where they differ, a verdict with a citation says who is right. Then each of
our engines is compared with what is right. A machine that isn't installed skips its tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.oracle.shared import once_a_run
from tools.oracle import deviations, families, randomly
from tools.oracle.case import Case
from tools.oracle.compare import Judged, described, differing, judge
from tools.oracle.runners import MACHINES, run_cases
from tools.oracle.tables import Mode
from tools.oracle.verdicts import VERDICTS

MODES = tuple(families.BY_MODE)
ENGINES = ("native", "portable")


@cache
def _cases(mode: Mode) -> list[Case]:
    return families.BY_MODE[mode]()


def _need(mode: Mode, *machines: str) -> None:
    for name in machines:
        reason = MACHINES[name].available(mode)
        if reason:
            pytest.skip(f"{name}: {reason}")


@cache
def _lines(machine: str, mode: Mode) -> list[str]:
    return once_a_run(f"{machine}-{mode.value}", lambda: run_cases(MACHINES[machine], _cases(mode), mode))


def _judged(cases: Sequence[Case], bochs: Sequence[str], qemu: Sequence[str]) -> list[Judged]:
    return [judge(*row) for row in zip(cases, bochs, qemu, strict=True)]


@cache
def _table(mode: Mode) -> list[Judged]:
    return _judged(_cases(mode), _lines("bochs", mode), _lines("qemu", mode))


def _shown(messages: Sequence[str]) -> str:
    return f"{len(messages)} differences\n" + "\n".join(messages[:40])


def _unexcused(table: Sequence[Judged], lines: Sequence[str], engine: str) -> tuple[list[str], Counter[str]]:
    """What an engine does wrong without an entry in `deviations`, and how often each entry is needed."""
    messages, needed = [], Counter[str]()
    for judged, line in zip(table, lines, strict=True):
        for difference in differing(judged, line):
            key = deviations.excuse(difference, engine)
            if key is None:
                messages.append(described(difference, ("right", engine)))
            else:
                needed[key] += 1
    return messages, needed


def test_there_are_enough_cases() -> None:
    distinct = set()
    for mode in MODES:
        names = Counter(case.name for case in _cases(mode))
        assert [name for name, count in names.items() if count > 1] == []
        distinct |= {
            (mode, c.code, c.ring, c.eflags, c.patches, tuple(sorted(c.settings.items()))) for c in _cases(mode)
        }
    assert len(distinct) >= 2000


@pytest.mark.parametrize("mode", MODES)
def test_the_oracles_agree_or_a_verdict_says_who_is_right(mode: Mode) -> None:
    _need(mode, "bochs", "qemu")
    assert not (found := [described(d) for judged in _table(mode) for d in judged.open]), _shown(found)


def test_every_verdict_is_needed() -> None:
    for mode in MODES:
        _need(mode, "bochs", "qemu")
    used = {verdict.key for mode in MODES for judged in _table(mode) for verdict in judged.used}
    assert {verdict.key for verdict in VERDICTS} == used


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_does_what_is_right(engine: str, mode: Mode) -> None:
    _need(mode, "bochs", "qemu", engine)
    found, _ = _unexcused(_table(mode), _lines(engine, mode), engine)
    assert not found, _shown(found)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_iret_of_ours_does_what_is_right(engine: str, mode: Mode) -> None:
    """Every IRET done by `interrupt_return`: those of the cases, and the one by which the image enters each case."""
    _need(mode, "bochs", "qemu", engine)
    table = [judged for judged in _table(mode) if re.search(r"\biret", judged.case.code)]
    assert len(table) >= 6
    lines = run_cases(MACHINES[f"{engine}+iret"], [judged.case for judged in table], mode)
    found, needed = _unexcused(table, lines, f"{engine}+iret")
    assert not found, _shown(found)
    assert not [key for key in needed if key.startswith("iret-")], "these are the engine's"


def test_every_deviation_still_exists() -> None:
    needed, tried = Counter[str](), set[str]()
    for mode in MODES:
        for engine in ENGINES:
            if not MACHINES[engine].available(mode):
                _need(mode, "bochs", "qemu")
                tried.add(engine)
                needed += _unexcused(_table(mode), _lines(engine, mode), engine)[1]
    listed = {own.key for own in deviations.OWN if tried & set(own.engines)}
    gone = (listed | (deviations.SHARED if tried else set())) - needed.keys()
    assert not gone, f"mended, so take it out of tools/oracle/deviations.py: {sorted(gone)}"


@pytest.mark.parametrize("mode", MODES)
def test_drawn_cases(mode: Mode) -> None:
    _need(mode, "bochs", "qemu")
    engines = [engine for engine in ENGINES if not MACHINES[engine].available(mode)]

    found: list[str] = []

    # Without shrinking: a batch costs seconds, and the message names the cases that differ.
    @settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(randomly.cases(mode))
    def compare(cases: list[Case]) -> None:
        table = _judged(cases, *(run_cases(MACHINES[name], cases, mode) for name in ("bochs", "qemu")))
        found.extend(described(d) for judged in table for d in judged.open)
        for engine in engines:
            found.extend(_unexcused(table, run_cases(MACHINES[engine], cases, mode), engine)[0])

    compare()
    assert not found, _shown(found)
