"""What a person at a terminal sees of a run that takes long; in a pipe there is nothing of it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.command import COMMAND, environment, hvproto, kernel, write

SPIN = kernel(
    "mov al, 'x'\nout 0xe9, al\nmov al, 10\nout 0xe9, al\n.on: mov ecx, 5000\n.wait: dec ecx\njnz .wait\njmp .on"
)
IN_A_LINE = kernel("mov al, 'x'\nout 0xe9, al\n.on: mov ecx, 5000\n.wait: dec ecx\njnz .wait\njmp .on")
PATIENCE = 60
"""Seconds after which a terminal that hasn't shown what it should is given up."""
LINE = rb"cycle [\d,]+ \([\d.,]+ ms\)"


def on_a_terminal(*arguments: str | Path, until: bytes, stdout_too: bool = True, **variables: str) -> tuple[int, bytes]:
    """Run until the terminal has shown what ``until`` matches, then Ctrl-C; the status, and all that it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=environment(TERM="xterm", **variables), stdin=subprocess.DEVNULL,
        stdout=theirs if stdout_too else subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen, sent = b"", False
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and select.select([ours], [], [], PATIENCE)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
            if not sent and re.search(until, seen):
                sent = True
                process.send_signal(signal.SIGINT)
        assert sent, seen
        return process.wait(timeout=PATIENCE), seen
    finally:
        process.kill()
        os.close(ours)


@pytest.mark.parametrize("stdout_too", [True, False])
def test_a_kernel_alone_that_takes_long(stdout_too: bool, tmp_path: Path) -> None:
    status, seen = on_a_terminal("boot", write(tmp_path, "spin.asm", SPIN), until=LINE, stdout_too=stdout_too)
    assert status == 130 and seen.endswith(b"\x1b[2Khvproto: interrupted\r\n")  # the line is gone
    assert stdout_too == seen.startswith(b"x\r\n")


@pytest.mark.parametrize("options", [("--quiet",), ()], ids=["quiet", "story"])
def test_a_guest_that_takes_long(options: tuple[str, ...], tmp_path: Path) -> None:
    image = write(tmp_path, "spin.asm", SPIN)
    exits = b"" if options else rb", [\d,]+ exits"
    status, seen = on_a_terminal("run", *options, "--guest", image, until=LINE + exits + b", 0 relocations")
    assert status == 130 and b"x" in seen and seen.endswith(b"hvproto: interrupted\r\n")
    assert (b"The run in numbers" in seen) == (not options)


def test_without_colour_there_is_none(tmp_path: Path) -> None:
    _, seen = on_a_terminal("run", "--guest", write(tmp_path, "spin.asm", SPIN), until=LINE, NO_COLOR="1")
    assert not re.search(rb"\x1b\[[\d;]*m", seen)


def test_a_kernels_own_line_is_left_alone(tmp_path: Path) -> None:
    """Its terminal is shared, and the kernel has not ended its line: nothing is written there."""
    process = subprocess.run(
        ["script", "-qec", " ".join([*COMMAND, "boot", str(write(tmp_path, "line.asm", IN_A_LINE)), "--limit",
                                     "2000000000"]), "/dev/null"],
        env=environment(TERM="xterm"), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.stdout.startswith(b"xhvproto: ") and b"ms)" not in process.stdout


def test_in_a_pipe_there_is_nothing(tmp_path: Path) -> None:
    image = write(tmp_path, "spin.asm", SPIN)
    ended = hvproto("boot", image, "--limit", "1500000000")
    assert ended.stdout == b"x\n" and "cycle " not in ended.stderr.replace("cycles", "") and "\x1b" not in ended.stderr
