"""Where two machines differ on a case: what verdicts and deviations decide on."""

from __future__ import annotations

from dataclasses import dataclass

from tools.oracle.case import Case
from tools.oracle.report import Report

OUTCOME = "outcome"
"""The field of a difference between whole outcomes: other vectors, or one that didn't come to report at all."""


@dataclass(frozen=True)
class Difference:
    """One field of one case. The first machine is Bochs beside QEMU, or what is right beside an engine."""

    case: Case
    field: str
    first: int | None
    second: int | None
    """The field's values; None for `OUTCOME`, and where a machine has no such field."""
    reports: tuple[Report | None, Report | None]
    lines: tuple[str, str]

    @property
    def flipped(self) -> int:
        """The bits that differ."""
        return (self.first or 0) ^ (self.second or 0)

    @property
    def vectors(self) -> tuple[int | None, int | None]:
        """The vector that each of them reports; None for one that doesn't report."""
        first, second = self.reports
        return first["vector"] if first else None, second["vector"] if second else None

    def shown(self, which: int) -> str:
        """One side's value, for people."""
        if self.field != OUTCOME:
            value = (self.first, self.second)[which]
            return "-" if value is None else f"{value:08x}"
        report = self.reports[which]
        if report is None:
            return self.lines[which]
        shown = f"vector {report['vector']:#x}"
        if "error" in report:
            shown += f" error {report['error']:04x}"
        return f"{shown} eip {report.get('eip', 0):08x}"
