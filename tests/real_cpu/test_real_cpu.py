"""The processor against the one that this process runs on (`tools/real_cpu`): ring 3, in 64-bit and 32-bit code."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tools.real_cpu import deviations
from tools.real_cpu.cases import all_cases
from tools.real_cpu.compare import Difference, differences
from tools.real_cpu.emulated import EmulatedProcessor
from tools.real_cpu.real import unavailable
from tools.real_cpu.report import Report, parsed
from tools.real_cpu.run import Unavailable, ask

pytestmark = pytest.mark.xdist_group("real-cpu")


@cache
def _real() -> tuple[list[Report] | None, str]:
    """The real processor's reports, or the reason why there are none."""
    reason = unavailable()
    if reason:
        return None, reason
    try:
        return ask(all_cases()), ""
    except Unavailable as error:
        return None, str(error)


@cache
def _found(engine: str) -> tuple[Difference, ...]:
    """All differences between the real processor and one of our engines."""
    reports, reason = _real()
    if reports is None:
        pytest.skip(f"the real processor can't be asked: {reason}")
    ours = EmulatedProcessor(engine)
    return tuple(
        difference
        for case, real in zip(all_cases(), reports, strict=True)
        for difference in differences(case, real, ours.run(case))
    )


def test_there_are_enough_cases() -> None:
    names = Counter(case.name for case in all_cases())
    assert [name for name, count in names.items() if count > 1] == []
    assert len({(case.image, case.bits, case.origin, case.eflags, *case.first_registers) for case in all_cases()}) > 900


def test_the_engine_does_what_the_real_processor_does(engine: str) -> None:
    found = [str(difference) for difference in _found(engine) if not deviations.excuses(difference, engine)]
    assert not found, f"{len(found)} differences\n" + "\n".join(found[:40])


def test_every_deviation_is_needed(engine: str) -> None:
    needed = set().union(*(deviations.excuses(difference, engine) for difference in _found(engine)))
    gone = deviations.owed(engine) - needed
    assert not gone, f"mended, so take it out of tools/real_cpu/deviations.py: {sorted(gone)}"


def test_deviations_name_cases_that_exist() -> None:
    names = {case.name for case in all_cases()}
    assert {name for entry in deviations.ALL for name in entry.cases} <= names


def test_reports_survive_their_lines() -> None:
    report = Report.of(14, 6, 0x1000, (1, 0x33, 0x2B, 0x202), list(range(16)), {"0x10": "00"})
    assert parsed(report.line()) == report
    assert Report.of(6, 6, 0x1000, (1, 0x33, 0x2B, 0x202), list(range(16)), {}).error is None
