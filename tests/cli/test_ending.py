"""Commands that are ended from outside: by Ctrl-C, or by a reader that has gone."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.command import COMMAND, environment, kernel, write

TALKER = kernel(".on:\nmov al, 'x'\nout 0xe9, al\nmov ecx, 5000\n.wait: dec ecx\njnz .wait\njmp .on")

SILENT = kernel("mov al, 'x'\nout 0xe9, al\n.on: jmp .on")
"""Never leaves its basic block and has no timer: only the machine itself can find the time to look at a signal."""


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("command", [("boot",), ("run", "--quiet", "--guest"), ("run", "--guest")], ids=" ".join)
@pytest.mark.parametrize(("source", "patience"), [(TALKER, 1), (TALKER, 40), (SILENT, 1)], ids=["1", "40", "silent"])
def test_interrupted(command: tuple[str, ...], source: str, patience: int, tmp_path: Path) -> None:
    process = start(*command, write(tmp_path, "endless.asm", source))
    assert process.stdout is not None
    try:
        assert len(process.stdout.read(patience)) == patience  # it streams: the kernel never ends
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (130, b"hvproto: interrupted\n")


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    process = start("boot", write(tmp_path, "talker.asm", TALKER))
    assert process.stdout is not None and process.stderr is not None
    try:
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        stderr = process.stderr.read()
        process.wait(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("boot", "hello"), ("run", "--guest", "hello"), ("guests",)], ids=" ".join)
def test_a_full_disk_under_stdout(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1 and b"No space left" in done.stderr and b"Traceback" not in done.stderr
