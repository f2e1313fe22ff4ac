from __future__ import annotations

import json

import pytest

from tests.support.command import ROOT, Ended, hvproto


@pytest.mark.parametrize("name", ["hello", "spin", "guest", "ptwrites"])
def test_a_guest_inside_a_process_prints_the_same_as_alone(name: str) -> None:
    assert hvproto("run", "--quiet", "--guest", name, "--plan", "application") == hvproto("boot", name)


def test_its_exit_status_is_the_commands() -> None:
    assert hvproto("run", "--quiet", "--plan", "application", "--guest", "exit") == Ended(7, b"", "")


def test_the_story_tells_the_way_through_the_host() -> None:
    ended = hvproto("run", "--plan", "application", "--guest", "compare")
    assert (ended.status, ended.stderr) == (0, "")
    for words in ("#DE divide error", "by the", "host's kernel and a signal", "guest prints: compare: done",
                  "no recoupling"):  # fmt: skip
        assert words in ended.text
    assert "decouples the host" not in ended.text
    assert max(len(line) for line in ended.text.splitlines()) <= 80


def test_what_a_process_cannot_be_is_said() -> None:
    ended = hvproto("run", "--quiet", "--plan", "application", "--guest", ROOT / "guests" / "modes" / "long.asm")
    assert ended.status == 1
    assert "plan application" in ended.stderr and "mirrored or direct" in ended.stderr


def test_the_comparison_as_a_table() -> None:
    ended = hvproto("run", "--compare")
    assert (ended.status, ended.stderr) == (0, "")
    for word in ("application", "mirrored", "direct", "divide", "system", "timer", "executed"):
        assert word in ended.text
    assert max(len(line) for line in ended.text.splitlines()) <= 80


def test_the_comparison_as_json_is_the_same_each_time() -> None:
    one, other = hvproto("run", "--compare", "--json"), hvproto("run", "--compare", "--json")
    assert one == other and one.status == 0
    lines = [json.loads(line) for line in one.text.splitlines()]
    assert len(lines) == 12
    assert {line["plan"] for line in lines} == {"application", "mirrored", "direct"}
    assert all(line["there"]["host"] > 0 for line in lines if line["plan"] == "application")


def test_the_comparison_has_a_guest_of_its_own() -> None:
    ended = hvproto("run", "--compare", "--guest", "hello")
    assert ended.status == 2 and "guest of its own" in ended.stderr
