"""The judge: lays the oracles' lines side by side, and an engine's beside what is right.

Where Bochs and QEMU agree, that is right. Where they don't, a verdict (`verdicts`) says which of them has the manual on
its side, or that the manual leaves it open: then nobody is held to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.oracle.case import Case
from tools.oracle.difference import OUTCOME, Difference
from tools.oracle.report import NOT_REACHED, Report, ending, parse
from tools.oracle.verdicts import VERDICTS, Says, Verdict
from tools.oracle.verdicts.open_questions import unchecked


@dataclass(frozen=True)
class Judged:
    """What is right for a case, as far as that is known."""

    case: Case
    right: Report | None
    line: str
    """The line that ``right`` is from: it says how the case ends if it doesn't come to report (a triple fault)."""
    unchecked: frozenset[str]
    """Fields to which nobody is held; with `OUTCOME` in it, nothing of the case is compared."""
    used: tuple[Verdict, ...]
    open: tuple[Difference, ...]
    """Where the oracles differ and no verdict says who is right."""


def judge(case: Case, bochs: str, qemu: str) -> Judged:
    """What is right for a case that the two oracles reported with these lines."""
    if NOT_REACHED in (bochs, qemu):
        raise RuntimeError(f"{case.name}: an oracle had to be started too often before this case")
    first, second = parse(bochs), parse(qemu)
    found = _differences(case, first, second, (bochs, qemu))
    if not found:
        # Both machines ended at this case: a shutdown is an outcome, too.
        return Judged(case, first, bochs, unchecked(case), (), ())
    right, line = dict(first) if first is not None else None, bochs
    free, used, unsettled = set(unchecked(case)), [], []
    for difference in found:
        verdict = _verdict(difference)
        if verdict is None:
            unsettled.append(difference)
            free.add(difference.field)
            continue
        used.append(verdict)
        if verdict.says is Says.EITHER:
            free.add(difference.field)
        elif verdict.says is Says.QEMU:
            if difference.field == OUTCOME:
                right, line = second, qemu
            elif right is not None and difference.second is not None:
                right[difference.field] = difference.second
    return Judged(case, right, line, frozenset(free), tuple(used), tuple(unsettled))


def differing(judged: Judged, line: str) -> list[Difference]:
    """Where a machine's line differs from what is right; ``first`` is what is right."""
    if OUTCOME in judged.unchecked:
        return []
    found = _differences(judged.case, judged.right, parse(line), (judged.line, line))
    return [difference for difference in found if difference.field not in judged.unchecked and not _free(difference)]


def _verdict(difference: Difference) -> Verdict | None:
    return next((verdict for verdict in VERDICTS if verdict.applies(difference)), None)


def _free(difference: Difference) -> bool:
    """Whether the manual leaves it open, though the oracles happen to agree."""
    verdict = _verdict(difference)
    return verdict is not None and verdict.says is Says.EITHER


def described(difference: Difference, names: tuple[str, str] = ("bochs", "qemu")) -> str:
    """One line that says what differs."""
    shown = ", ".join(f"{name} {difference.shown(which)}" for which, name in enumerate(names))
    return f"{difference.case.name}: {difference.field}: {shown}"


def _differences(case: Case, first: Report | None, second: Report | None, lines: tuple[str, str]) -> list[Difference]:
    if first is None or second is None or first["vector"] != second["vector"]:
        if first is second and ending(lines[0]) == ending(lines[1]):
            return []
        return [Difference(case, OUTCOME, None, None, (first, second), lines)]
    names = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return [Difference(case, name, first.get(name), second.get(name), (first, second), lines) for name in names]
