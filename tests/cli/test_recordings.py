"""The files of `hvproto run`: events, report and trace; refused before anything runs, complete however it ends."""

from __future__ import annotations

import base64
import json
import re
import signal
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import COMMAND, Ended, environment, hvproto, kernel, write

ENDLESS = kernel(".on:\nmov al, 'x'\nout 0xe9, al\nmov ecx, 5000\n.wait: dec ecx\njnz .wait\njmp .on")


def header(report: Path) -> dict[str, Any]:
    """What the page says of itself: heading, lanes, kinds of events with their numbers."""
    text = re.search(r'<script id="data"[^>]*>(.*?)</script>', report.read_text(), re.DOTALL)
    assert text is not None
    blob = zlib.decompress(base64.b64decode(text[1], validate=True))
    (length,) = struct.unpack_from("<I", blob)
    found: dict[str, Any] = json.loads(blob[8 : 8 + length])
    return found


def numbers(report: Path) -> dict[str, int]:
    return {kind["name"]: kind["rows"] for kind in header(report)["kinds"]}


def told(events: Path) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for line in events.read_text().splitlines():
        kind = json.loads(line)["event"]
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def refused(ended: Ended, *words: str) -> None:
    assert ended.status == 2 and ended.stdout == b"" and all(word in ended.stderr for word in words), ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(("option", "what"), [("--report", "the report"), ("--trace", "the trace")])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(option: str, what: str, tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "nowhere" / "file"):
        refused(hvproto("run", option, name), str(name), f"{what} can't be written")
    image = write(tmp_path, "mine.asm", kernel("cli\nhlt"))
    refused(hvproto("run", "--guest", image, option, image), "overwrite", option)
    assert "hlt" in image.read_text()


def test_two_files_cannot_be_the_same(tmp_path: Path) -> None:
    refused(hvproto("run", "--events", tmp_path / "a", "--trace", tmp_path / "." / "a"), "--events and --trace")


def test_a_file_that_is_full_later_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    for option in ("--report", "--trace"):
        ended = hvproto("run", "-q", "--guest", "hello", option, "/dev/full")
        assert ended.status == 2 and "No space left" in ended.stderr


def test_a_run_that_fails_leaves_all_three(tmp_path: Path) -> None:
    events, report, trace = (tmp_path / name for name in ("e", "r", "t"))
    ended = hvproto("run", "-q", "--guest", "triple", "--events", events, "--report", report, "--trace", trace)
    assert ended.status == 1 and "triple fault" in ended.stderr
    assert numbers(report) == told(events) and numbers(report)["Shutdown"] == 1
    assert json.loads(trace.read_text())[-1]["ph"] == "X"


def test_ctrl_c_leaves_what_was_done_so_far(tmp_path: Path) -> None:
    events, report, trace = (tmp_path / name for name in ("e", "r", "t"))
    process = subprocess.Popen(
        [*COMMAND, "run", "-q", "--guest", write(tmp_path, "endless.asm", ENDLESS), "--events", events, "--report",
         report, "--trace", trace],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.read(20) == b"x" * 20
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (130, b"hvproto: interrupted\n")
    kinds, written = numbers(report), told(events)
    assert kinds["Decoupled"] >= 2 and sum(written.values()) - sum(kinds.values()) in (0, 1)
    lanes = {line["tid"] for line in json.loads(trace.read_text()) if line["ph"] == "X"}
    assert lanes == {0, 1, 2}


def test_ctrl_c_in_the_story_sums_it_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "--guest", write(tmp_path, "endless.asm", ENDLESS)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        process.stdout.read(4000)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (130, b"hvproto: interrupted\n")
    assert b"The run in numbers" in stdout and re.search(rb"exit status +130", stdout)


def test_the_page_is_made_whether_the_story_is_told_or_not(tmp_path: Path) -> None:
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    assert hvproto("run", "--guest", "hello", "--report", one).status == 0
    assert hvproto("run", "-q", "--guest", "hello", "--report", other).status == 0
    assert one.read_bytes() == other.read_bytes()
    assert header(one)["heading"] == {"plan": "mirrored", "host": "host", "guests": ["hello"]}
