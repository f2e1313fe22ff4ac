"""Lines that are computed once a test run, whichever worker needs them first."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
"""One number for all workers of a test run."""


def once_a_run(name: str, compute: Callable[[], list[str]]) -> list[str]:
    """What ``compute`` gives, from the file that the first caller of this run has written."""
    directory = Path(tempfile.gettempdir(), f"hvproto-oracle-run-{RUN}")
    directory.mkdir(exist_ok=True)
    with open(directory / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = directory / f"{name}.json"
        if not file.exists():
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(compute()), "utf-8")
            partial.replace(file)
        return list(json.loads(file.read_text("utf-8")))
