"""Failures that are planted, for a real reason: made small, and shown again by the debugger's one command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.campaign.files import HOSTILE, campaign, failures, query
from tests.support.command import Ended, hvproto, write

IDEAS = """
from hvproto.testing import EndGuest, GeneralProtection


def lies_when_low(seen):
    "Breaks the guest, but only while the region is in the lower half."
    if seen.guest.region.base < 0x8000_0000:
        return EndGuest("the region was low", 5)


def refuses_privileges(seen):
    if GeneralProtection.matches(seen) and seen.cpu.cpl == 3:
        return EndGuest("a program did what it may not", 6)


def forgets(seen):
    raise LookupError(f"nobody foresaw vector {seen.vector}")


class Nowhere:
    def suggest(self, space, pages, history):
        return 0x123
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "ideas.py", IDEAS)
    return tmp_path


def failed(folder: Path, text: str) -> tuple[Ended, list[str]]:
    """Run a campaign whose one scenario fails; what it says, and the command for the debugger."""
    ended = hvproto("campaign", campaign(folder, text), "-j", "1", cwd=folder)
    assert (ended.status, ended.stderr) == (1, "")
    ((command,),) = query(folder / "ideas.sqlite", "SELECT command FROM failure")
    assert command in ended.text
    return ended, shlex.split(command)


def debugged(folder: Path, command: list[str], *script: str) -> str:
    write(folder, "script", "\n".join(script))
    assert command[:2] == ["hvproto", "debug"]
    ended = hvproto(*command[1:], "-x", "script", "--batch", cwd=folder)
    assert (ended.status, ended.stderr) == (0, "")
    return ended.text


def test_a_schedule_is_reduced_to_the_one_move_that_matters(folder: Path) -> None:
    text = f'scenarios = [{{guests = ["{HOSTILE}/storm.asm"], relocations = ["random 1"], handlers = ["ideas.py:lies_when_low"], limit = 100_000}}]'
    _, command = failed(folder, text)
    ((moves, kind),) = query(folder / "ideas.sqlite", "SELECT moves, kind FROM result")
    ((number, _, relocation, limit, size, runs),) = failures(folder / "ideas.sqlite")
    assert kind == "output" and number == 1 and size is None and runs > 2 and limit < 100_000
    at, _, place = relocation.removeprefix("at ").partition("=")
    assert int(place, 16) < 0x8000_0000 and f'"{at}": {int(place, 16)}' in moves, "it isn't one of the moves made"
    said = debugged(folder, command, "break Relocated", "continue", "delete", "continue")
    assert f"{int(place, 16):#x}" in said and "status 5" in said


def test_a_generated_guest_is_reduced_to_the_bytes_that_matter(folder: Path) -> None:
    text = """
        [[scenarios]]
        fuzz = { bits = 32, ring = 3, bytes = 32 }
        seeds = [3]
        expect = "status 33"
        limit = 200_000
        handlers = ["ideas.py:refuses_privileges"]
    """
    _, command = failed(folder, text)
    ((_, _, relocation, _, size, _),) = failures(folder / "ideas.sqlite")
    assert relocation == "never" and 1 <= size <= 3
    guest = Path(command[command.index("--guest") + 1])
    assert guest == folder / "ideas-guests" / "1.asm" and f"{size} random bytes" in guest.read_text().splitlines()[0]
    assert "status 6" in debugged(folder, command, "continue")


def test_a_handler_that_raises_is_told_with_its_own_traceback(folder: Path) -> None:
    text = f'minimise = 0\nscenarios = [{{guests = ["{HOSTILE}/gates.asm"], handlers = ["ideas.py:forgets"]}}]'
    ended, command = failed(folder, text)
    assert "nobody foresaw vector" in ended.text and "FAILED 1" in ended.text
    ((kind, detail),) = query(folder / "ideas.sqlite", "SELECT kind, detail FROM result")
    assert kind == "hook: HookError" and "in forgets" in detail
    assert "nobody foresaw vector" in debugged(folder, command, "continue")


def test_a_policy_that_names_no_place_is_a_failure(folder: Path) -> None:
    text = f'minimise = 0\nscenarios = [{{guests = ["{HOSTILE}/stack_top.asm"], policy = "ideas.py:Nowhere"}}]'
    ended, _ = failed(folder, text)
    assert "the relocation policy Nowhere suggests 0x123" in ended.text
