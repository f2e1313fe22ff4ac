"""The command line as other people's scripts meet it: a process with a status, a stdout and a stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "hvproto")


@dataclass(frozen=True)
class Ended:
    """What is left of a command: its exit status and all that it wrote."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8")


def environment(**changes: str) -> dict[str, str]:
    """Ours, with this tree's package, an 80-column page and no colour that somebody else asked for."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **changes}


def hvproto(
    *arguments: str | Path, cwd: Path | None = None, timeout: int = 120, typed: bytes = b"", **variables: str
) -> Ended:
    """Run `hvproto` to its end, with ``typed`` on its standard input. Whatever happens, there must be no traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd, env=environment(**variables), input=typed, capture_output=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    stderr = done.stderr.decode("utf-8", "backslashreplace")
    assert "Traceback" not in stderr and b"Traceback" not in done.stdout, stderr
    return Ended(done.returncode, done.stdout, stderr)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """A file for a test."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def kernel(body: str) -> str:
    """An assembly kernel at 1 MiB whose first instruction is the first of ``body``."""
    return f".origin 0x100000\n.entry start\nstart:\n{body}\n"
