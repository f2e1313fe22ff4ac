"""The oracles' lines, kept in a file below /tmp from one run of `show` to the next. Tests don't use this."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.oracle.case import Case
from tools.oracle.image import build
from tools.oracle.runners import Runner, batches, run_cases
from tools.oracle.tables import Mode

DIRECTORY = Path(tempfile.gettempdir(), f"hvproto-oracle-{os.getuid()}")


def cached_lines(runner: Runner, cases: Sequence[Case], mode: Mode) -> list[str]:
    """`run_cases`, or what it said for the same image."""
    source = (
        b"".join(build(batch, mode) for batch in batches(cases)) + Path(__file__).with_name("runners.py").read_bytes()
    )
    file = DIRECTORY / f"{runner.name}-{mode.value}-{hashlib.sha256(source).hexdigest()[:24]}.json"
    if file.exists():
        return list(json.loads(file.read_text("utf-8")))
    lines = run_cases(runner, cases, mode)
    DIRECTORY.mkdir(exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(lines), "utf-8")
    partial.replace(file)
    return lines
