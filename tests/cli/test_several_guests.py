"""`hvproto run` with several guests, or with larger ones, as a user has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Ended, hvproto, kernel, write

HELLO = "hello: here I am"


def refused(ended: Ended, *words: str) -> None:
    assert ended.status == 2 and not ended.stdout, ended
    for word in words:
        assert word in ended.stderr


def test_each_guests_lines_have_its_name() -> None:
    ended = hvproto("run", "--quiet", "--guest", "hello", "--guest", "guest", "--guest", "hello")
    assert (ended.status, ended.stderr) == (0, "")
    lines = ended.text.splitlines()
    mixed = [line.removeprefix("[guest] ") for line in lines if line.startswith("[guest] ")]
    assert mixed == hvproto("run", "--quiet").text.splitlines()
    assert sorted(set(lines) - {f"[guest] {line}" for line in mixed}) == [f"[hello 2] {HELLO}", f"[hello] {HELLO}"]


def test_what_is_no_whole_line_gets_its_end(tmp_path: Path) -> None:
    prompt = write(tmp_path, "prompt.asm", kernel("mov al, '$'\nout 0xe9, al\nhlt"))
    ended = hvproto("run", "-q", "--guest", prompt, "--guest", "hello")
    assert sorted(ended.text.splitlines()) == [f"[hello] {HELLO}", "[prompt] $"]
    # Alone, nothing is added to what it prints.
    assert hvproto("run", "-q", "--guest", prompt).stdout == b"$"


def test_whoever_fails_is_named() -> None:
    ended = hvproto("run", "-q", "--guest", "triple", "--guest", "hello", "--guest", "triple")
    assert ended.status == 1 and ended.text == f"[hello] {HELLO}\n"
    assert ended.stderr.count("triple fault") == 2
    assert "hvproto: [triple] guest at EIP" in ended.stderr and "hvproto: [triple 2] guest at EIP" in ended.stderr


def test_the_first_status_that_is_not_0(tmp_path: Path) -> None:
    three, five = (write(tmp_path, f"{n}.asm", kernel(f"mov al, {n}\nout 0xf4, al\nhlt")) for n in (3, 5))
    assert hvproto("run", "-q", "--guest", "hello", "--guest", five, "--guest", three).status == 11


def test_the_story_of_several(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    ended = hvproto("run", "--guest", "hello", "--guest", "triple", "--guest", "hello", "--events", events)
    for words in (
        "guest  [hello 2]", f"guest prints: [hello] {HELLO}", f"guest prints: [hello 2] {HELLO}",
        "the guest [hello 2] goes on", "the guest [hello] has ended", "exit status of guest [triple]", "TripleFault",
    ):  # fmt: skip
        assert words in ended.text
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert {line["guest"] for line in lines if line["event"] == "Decoupled"} == {0, 1, 2}
    assert {line["guest"] for line in lines if line["event"] == "HostFunction"} == {0, 2}


def test_memory_for_a_guest_that_needs_it(tmp_path: Path) -> None:
    large = write(tmp_path, "large.asm", ".origin 0x4000000\nmov al, 'y'\nout 0xe9, al\ncli\nhlt\n")
    refused(hvproto("run", "-q", "--guest", large), "64", "--guest-ram 65M")
    ended = hvproto("run", "-q", "--guest", large, "--guest-ram", "128M")
    assert (ended.status, ended.stdout) == (0, b"y")


@pytest.mark.parametrize(("arguments", "words"), [
    (("--ram", "64M"), ("96M", "--ram")), (("--guest-ram", "1000"), ("whole MiB",)), (("--guest-ram", "0"), ("MiB",)),
    (("--guest-ram", "much"), ("much",)), (("--guest-ram", "2G"), ("2048 MiB",)), (("--gdb", "1234"), ("one guest",)),
    (("--guest", "nobody"), ("nobody",)),
])  # fmt: skip
def test_what_can_not_be_had(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(hvproto("run", "-q", "--guest", "hello", "--guest", "hello", *arguments), *words)


def test_more_guests_than_a_host_has_processes_for() -> None:
    refused(hvproto("run", "-q", *["--guest", "hello"] * 17), "from 1 to 16")
