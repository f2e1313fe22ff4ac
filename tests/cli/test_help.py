"""What the command line says of itself, and what a shell can complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import environment, hvproto

COMMANDS = ("run", "boot", "debug", "guests", "claims", "bench")


def test_the_exit_statuses_are_said() -> None:
    text = hvproto("--help").text
    said = {line.split()[0] for line in text.split("Exit status")[1].split("NO_COLOR")[0].splitlines() if line.strip()}
    assert said >= {"0", "1", "2", "3", "130", "141"}
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "offered"),
    [("run --plan ", {"mirrored", "direct", "application"}), ("run --guest self", {"selfmap"}), ("boot he", {"hello"}),
     ("run --host ", {"host"}), ("gue", {"guests"})],
)  # fmt: skip
def test_the_shell_completes(words: str, offered: set[str]) -> None:
    line = f"hvproto {words}"
    code = "from hvproto.cli.app import app; app(prog_name='hvproto')"
    variables = environment(
        _HVPROTO_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words.split(" "))), PATH="/usr/bin:/bin"
    )
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered, done.stderr
