"""The real processor's side of all cases, as lines of JSON: ``python -m tools.real_cpu.run [name-prefix]``.

A process of its own, so that nothing that goes wrong here hurts who asks (`ask`).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.real_cpu.case import Case
from tools.real_cpu.cases import all_cases
from tools.real_cpu.real import RealProcessor
from tools.real_cpu.report import Report, parsed

SECONDS = 60
"""After these the process is ended by a signal that isn't handled."""


UNAVAILABLE = 77
"""Exit status where the system doesn't give what it takes."""


class Unavailable(Exception):
    """The real processor can't be asked here; the message says why."""


def main() -> None:
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    cases = [case for case in all_cases() if case.name.startswith(prefix)]
    for case in cases:
        _ = case.image
    try:
        processor = RealProcessor()
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(UNAVAILABLE)
    signal.alarm(SECONDS)
    for case in cases:
        print(processor.run(case).line(), flush=True)


def ask(cases: Sequence[Case], prefix: str = "") -> list[Report]:
    """What the real processor does in all cases of a prefix. Raises RuntimeError with the case that it died of."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tools.real_cpu.run", prefix]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == UNAVAILABLE:
        raise Unavailable(done.stderr.strip())
    reports = [parsed(line) for line in done.stdout.splitlines() if line.endswith("}")]
    if done.returncode or len(reports) != len(cases):
        at = cases[len(reports)].name if len(reports) < len(cases) else "-"
        raise RuntimeError(f"ended with {done.returncode} at {at}: {done.stderr[-2000:]}")
    return reports


if __name__ == "__main__":
    main()
