"""``python -m tools.oracle.show``: cases, what each machine makes of them, and what an engine does wrong.

Examples::

    python -m tools.oracle.show --summary --engine native --mode 32
    python -m tools.oracle.show --engine native --family walk --wrong
    python -m tools.oracle.show --case far/jmp/null/ring3/rpl0
    python -m tools.oracle.show --summary                      # the oracles against each other
    python -m tools.oracle.show --random 1f --engine portable --wrong
"""

from __future__ import annotations

import argparse
import signal
from collections import Counter, defaultdict
from collections.abc import Sequence

from tools.oracle import deviations
from tools.oracle.cached import cached_lines
from tools.oracle.case import Case
from tools.oracle.compare import Judged, described, differing, judge
from tools.oracle.difference import Difference
from tools.oracle.families import BY_MODE
from tools.oracle.randomly import batch
from tools.oracle.runners import MACHINES, run_cases
from tools.oracle.show_case import case_text
from tools.oracle.tables import Mode

ENGINES = ("native", "portable", "native+iret", "portable+iret")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    mode = Mode(options.mode)
    everything = [case for seed in options.random for case in batch(int(seed, 16), mode)] or BY_MODE[mode]()
    oracles = [cached_lines(MACHINES[name], everything, mode) for name in ("bochs", "qemu")]
    table = [judge(*row) for row in zip(everything, *oracles, strict=True)]
    lines = {case.name: row for case, *row in zip(everything, *oracles, strict=True)}
    table = [judged for judged in table if _wanted(judged.case, options)]
    if not table:
        raise SystemExit("no such case")
    cases = [judged.case for judged in table]
    engines = {name: run_cases(MACHINES[name], cases, mode) for name in options.engine}
    if options.summary:
        _summary(table, engines)
        return
    for index, judged in enumerate(table):
        own = {name: engine[index] for name, engine in engines.items()}
        wrong = judged.open or any(_unexcused(judged, line, name) for name, line in own.items())
        if wrong or not options.wrong:
            bochs, qemu = lines[judged.case.name]
            print(case_text(judged, {"bochs": bochs, "qemu": qemu} | own, mode))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.oracle.show", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=[mode.value for mode in BY_MODE], default=Mode.LEGACY.value)
    parser.add_argument("--engine", choices=ENGINES, action="append", default=[], help="run this one, too")
    parser.add_argument("--family", action="append", help="only cases whose name begins with this")
    parser.add_argument("--case", action="append", help="only cases whose name contains this")
    parser.add_argument(
        "--random", action="append", default=[], metavar="SEED", help="this batch of random cases instead"
    )
    parser.add_argument("--wrong", action="store_true", help="only cases where something is wrong and not excused")
    parser.add_argument("--summary", action="store_true", help="count the differences by family and field")
    return parser.parse_args(arguments)


def _wanted(case: Case, options: argparse.Namespace) -> bool:
    if options.case and not any(part in case.name for part in options.case):
        return False
    return not options.family or any(case.name.startswith(f"{part.rstrip('/')}/") for part in options.family)


def _unexcused(judged: Judged, line: str, engine: str) -> list[Difference]:
    return [found for found in differing(judged, line) if deviations.excuse(found, engine) is None]


def _summary(table: Sequence[Judged], engines: dict[str, list[str]]) -> None:
    print(f"{len(table)} cases in {len({judged.case.family for judged in table})} families")
    verdicts = Counter(verdict.key for judged in table for verdict in judged.used)
    for key, count in sorted(verdicts.items()):
        print(f"  verdict {key}: {count}")
    _groups("the oracles disagree, without a verdict", [found for judged in table for found in judged.open])
    for name, lines in engines.items():
        excused, found = Counter[str](), list[Difference]()
        for judged, line in zip(table, lines, strict=True):
            for difference in differing(judged, line):
                excuse = deviations.excuse(difference, name)
                if excuse is None:
                    found.append(difference)
                else:
                    excused[excuse] += 1
        for key, count in sorted(excused.items()):
            print(f"  {name}, known deviation {key}: {count}")
        _groups(f"{name} against what is right", found)


def _groups(title: str, found: Sequence[Difference]) -> None:
    """Counts by family, field and what kind of difference, the largest group first, each with one example."""
    groups = defaultdict[tuple[str, ...], list[Difference]](list)
    for difference in found:
        groups[(difference.case.family, difference.field, _kind(difference))].append(difference)
    cases = len({difference.case.name for difference in found})
    print(f"{title}: {cases} cases, {len(found)} differences, {len(groups)} groups")
    for (family, field, kind), members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"  {len(members):5}  {family:12} {field:8} {kind:24} {described(members[0], ('1st', '2nd'))}")


def _kind(difference: Difference) -> str:
    if difference.field == "outcome":
        first, second = difference.vectors
        words = (
            line.split()[0] if vector is None else f"#{vector:x}"
            for vector, line in zip((first, second), difference.lines, strict=True)
        )
        return " -> ".join(words)
    return f"flips {difference.flipped:x}" if difference.flipped.bit_count() <= 4 else "differs"


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    main()
