"""`run --json` and `boot --json`: one object on stdout, however it ends, for a program that reads it."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import termios
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import IO, Any

import pytest

from hvproto.cli.failures import MEANINGS
from tests.support.command import COMMAND, Ended, environment, hvproto, kernel, write

ECHO = kernel(".on: mov dx, 0x3fd\nin al, dx\ntest al, 1\njz .on\nmov dx, 0x3f8\nin al, dx\nout 0xe9, al\njmp .on")
"""Prints what it reads at COM1, for ever."""
END = ["status", "meaning", "reason", "error", "world", "where"]


def the_object(ended: Ended) -> dict[str, Any]:
    """What stdout has: a line, an object, and nothing else."""
    assert ended.stdout.count(b"\n") == 1 and ended.stdout.endswith(b"\n")
    found: dict[str, Any] = json.loads(ended.stdout)
    assert list(found)[:6] == END and found["status"] == ended.status
    return found


def test_a_runs_numbers_are_those_of_its_events(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    ended = hvproto("run", "--json", "--events", events)
    assert ended.stderr == ""
    found = the_object(ended)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert found["events"] == Counter(line["event"] for line in lines)
    assert found["relocations"] == found["events"]["Relocated"] > 0
    routes = Counter(line["route"] for line in lines if line["event"] == "ExceptionTaken")
    assert {route: sum(names.values()) for route, names in found["exceptions"].items()} == routes
    assert [found[name] for name in END] == [0, "all went well", lines[-1]["reason"], None, None, None]
    assert found["cycles"] == lines[-1]["at"]
    only = found["guests"][0]
    assert (only["name"], only["end"], only["status"]) == ("guest", "ended", 0)
    assert only["relocations"] == found["relocations"] and only["exceptions"] == found["exceptions"]
    assert found["host"]["output"].startswith("host: up\n")


def test_it_is_the_same_each_time_and_has_what_the_guest_printed(tmp_path: Path) -> None:
    letters = "".join(f"mov al, {byte}\nout 0xe9, al\n" for byte in b"a\xff\x00\n")
    image = write(tmp_path, "odd.asm", kernel(letters + "cli\nhlt"))
    one, other = (hvproto("run", "--json", "--guest", image) for _ in range(2))
    assert one == other
    printed = hvproto("run", "--quiet", "--guest", image).stdout
    assert the_object(one)["guests"][0]["output"].encode("latin-1") == printed == b"a\xff\x00\n"
    assert the_object(hvproto("boot", image, "--json"))["output"].encode("latin-1") == printed


def test_each_of_several_guests_has_its_own_end_and_counts() -> None:
    ended = hvproto("run", "--json", "--guest", "triple", "--guest", "hello", "--guest", "exit")
    found = the_object(ended)
    assert (found["status"], found["meaning"], found["error"]) == (1, MEANINGS[1], "TripleFault")
    assert found["world"] == "guest" and "last_words" in found["where"] and "triple fault" in ended.stderr
    triple, hello, leaving = found["guests"]
    assert [one["end"] for one in found["guests"]] == ["failed", "ended", "ended"]
    assert "triple fault" in triple["reason"] and triple["status"] == 1
    assert (hello["output"], hello["status"], leaving["status"]) == ("hello: here I am\n", 0, 7)
    assert sum(one["decouplings"] for one in found["guests"]) == found["decouplings"]
    assert "#DE" in triple["exceptions"]["reflect"] and "reflect" not in hello["exceptions"]


@pytest.mark.parametrize("plan", ["mirrored", "direct", "application"])
def test_a_status_of_the_guests_own_is_called_so(plan: str) -> None:
    found = the_object(hvproto("run", "--json", "--guest", "exit", "--plan", plan))
    assert (found["status"], found["meaning"]) == (7, "what the kernel itself ends with")
    assert found["guests"][0]["reason"] and found["plan"] == plan


@pytest.mark.parametrize("command", [("run", "--guest"), ("boot",)])
def test_a_run_that_its_limit_ends(command: tuple[str, ...]) -> None:
    found = the_object(hvproto(*command, "forever", "--json", "--limit", "3000000"))
    assert (found["status"], found["error"]) == (1, "LimitReached")
    assert "3,000,000" in found["reason"]
    assert found["cycles"] >= 3_000_000
    if command[0] == "run":
        assert (found["guests"][0]["end"], found["guests"][0]["error"]) == ("failed", "LimitReached")


@pytest.mark.parametrize("command", [("run", "--json", "--guest"), ("boot", "--json")])
def test_ctrl_c_keeps_what_was_done(command: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is seen of the run from outside before it ends, but that it takes what it is given to read."""
    image = write(tmp_path, "echo.asm", ECHO)
    process = subprocess.Popen(
        [*COMMAND, *command, str(image)], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(b"x" * 200)
        process.stdin.flush()
        while _waiting_in(process.stdin) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    found = the_object(Ended(process.returncode, stdout, stderr.decode()))
    assert (found["status"], found["meaning"]) == (130, MEANINGS[130])
    assert "x" in (found["guests"][0] if command[0] == "run" else found)["output"]


def _waiting_in(pipe: IO[bytes]) -> int:
    """How many bytes nobody has read yet."""
    count = array("i", [0])
    fcntl.ioctl(pipe.fileno(), termios.FIONREAD, count)
    return count[0]


def test_a_bare_machine_says_what_its_devices_saw(tmp_path: Path) -> None:
    body = "mov dx, 0x300\nin al, dx\nin al, 0x43\nmov word ptr [0xb8000], 0x0748\nmov al, 3\nout 0xf4, al\nhlt"
    found = the_object(hvproto("boot", write(tmp_path, "kernel.asm", kernel(body)), "--json"))
    assert (found["status"], found["reason"]) == (7, "debug exit port, value 0x3")
    assert found["meaning"] == "what the kernel itself ends with"
    assert found["unclaimed"] == ["port 0x0300: read once"] and "8254" in found["complaints"][0]
    assert found["screen"] == "H"


def test_a_bare_kernel_that_comes_to_grief() -> None:
    ended = hvproto("boot", "triple", "--json")
    found = the_object(ended)
    assert (found["status"], found["error"], found["world"]) == (1, "TripleFault", "guest")
    assert "last_words" in found["where"] and "triple fault" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [("run", "--json", "--guest", "nobody"), ("boot", "nobody", "--json"), ("run", "--json", "--verbose"),
     ("run", "--json", "--gdb", "0"), ("boot", "hello", "--json", "--gdb", "0")],
    ids=" ".join,
)  # fmt: skip
def test_where_nothing_runs_there_is_no_object(arguments: tuple[str, ...]) -> None:
    ended = hvproto(*arguments)
    assert (ended.status, ended.stdout) == (2, b"") and ended.stderr


def test_the_meanings_are_those_of_the_help() -> None:
    text = " ".join(hvproto("--help").text.split())
    for status, meaning in MEANINGS.items():
        assert f"{status} {meaning}" in text
