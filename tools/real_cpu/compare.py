"""Where two reports of a case differ, field by field."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tools.real_cpu.case import Case
from tools.real_cpu.report import Report

OUTCOME = "outcome"
"""The field of a difference between whole outcomes: other vectors. Nothing else of the case is compared then."""


@dataclass(frozen=True)
class Difference:
    """One field of one case."""

    case: Case
    field: str
    real: object
    ours: object

    def __str__(self) -> str:
        real, ours = (f"{value:#x}" if isinstance(value, int) else str(value) for value in (self.real, self.ours))
        return f"{self.case.name}: {self.field}: the real processor {real}, ours {ours}"


def differences(case: Case, real: Report, ours: Report) -> list[Difference]:
    """All of RFLAGS is compared but what the manual leaves undefined.

    RF and TF too: Linux shows RFLAGS in the signal frame as the processor pushed them. Outside 64-bit code only the
    lower eight registers are: R8 to R15 don't exist there.
    """
    if real.vector != ours.vector:
        return [Difference(case, OUTCOME, outcome(real), outcome(ours))]
    first, second = _fields(case, real), _fields(case, ours)
    return [Difference(case, name, first[name], second[name]) for name in first if first[name] != second[name]]


def outcome(report: Report) -> str:
    shown = f"vector {report.vector}"
    if report.error is not None:
        shown += f" error {report.error:#x}"
    if report.cr2 is not None:
        shown += f" cr2 {report.cr2:#x}"
    return f"{shown} at {report.rip:#x}"


def _fields(case: Case, report: Report) -> dict[str, object]:
    fields = asdict(report)
    registers = fields.pop("registers")
    if case.bits == 32:
        registers = dict(list(registers.items())[:8])
    fields["rflags"] &= ~case.undefined
    return {**fields, **registers}
