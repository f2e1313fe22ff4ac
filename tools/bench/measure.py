"""Rows of the table, and how they are measured: all samples of a round in turns, ratios within it, medians of rounds.

Absolute times depend on the machine, and drift by a factor of two while it runs; ratios within a round hold.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

TOLERANCE = 1.25
"""What `--check` lets a median miss its bar by: an estimate, from quick samples of a loaded machine that were up to a
fifth apart."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done for one sample."""

    quick: bool

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full


Sample = Callable[[Sizes], float]
"""Measures once; gives seconds for one of what is counted, or a bare number (MiB)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: ``measured`` against ``yardstick``. ``at_least`` turns the ratio around: yardstick / measured."""

    name: str
    what: str
    unit: str
    bar: float
    measured: Sample
    yardstick: Sample | None
    at_least: bool = False
    missing: str = ""
    """Why it can't be measured here; nothing is, then."""

    def ratio(self, measured: float, yardstick: float) -> float:
        return yardstick / measured if self.at_least else measured / yardstick

    def holds(self, ratio: float, tolerance: float = 1.0) -> bool:
        return ratio * tolerance >= self.bar if self.at_least else ratio <= self.bar * tolerance


@dataclass(slots=True)
class Result:
    """What came out for a row."""

    row: Row
    ratios: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    def holds(self, tolerance: float) -> bool | None:
        """Whether the median meets the bar; None without one."""
        return None if self.median is None else self.row.holds(self.median, tolerance)

    def to_json(self) -> dict[str, Any]:
        plain = {key: value for key, value in asdict(self).items() if key == "problem"}
        row = self.row
        return {
            "name": row.name, "what": row.what, "unit": row.unit, "bar": row.bar, "at_least": row.at_least,
            "median": self.median, "least": min(self.ratios, default=None), "most": max(self.ratios, default=None),
            "rounds": len(self.ratios), "holds": self.holds(1.0), "missing": row.missing or plain["problem"],
        }  # fmt: skip


def run(rows: Iterable[Row], *, quick: bool, rounds: int, progress: Callable[[str], None]) -> list[Result]:
    """Measure every row in each round; a yardstick that several rows share is measured anew beside each of them."""
    results = [Result(row) for row in rows]
    sizes = Sizes(quick)
    for number in range(rounds):
        for result in results:
            row = result.row
            if row.missing or result.problem:
                continue
            progress(f"round {number + 1} of {rounds}: {row.name}")
            gc.collect()
            try:
                yardstick = 1.0 if row.yardstick is None else row.yardstick(sizes)
                measured = row.measured(sizes)
                again = 1.0 if row.yardstick is None else row.yardstick(sizes)
            except OSError as problem:
                result.problem = str(problem)
                continue
            result.ratios.append(row.ratio(measured, (yardstick + again) / 2))
    return results


def seconds(action: Callable[[], object]) -> float:
    """What an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
