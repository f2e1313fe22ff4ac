"""What the command line says of itself: help, version, the bundled kernels."""

from __future__ import annotations

import json

import pytest

from hvproto import __version__, bundled
from hvproto.errors import BadInput
from tests.support.command import hvproto


def test_version() -> None:
    assert hvproto("--version").text == f"hvproto {__version__}\n"


@pytest.mark.parametrize("command", ["run", "boot", "guests", "claims"])
def test_every_command_has_examples(command: str) -> None:
    ended = hvproto(command, "--help")
    assert ended.status == 0 and ended.text.startswith("Usage: hvproto")
    assert "Examples:" in ended.text and f"  hvproto {command}" in ended.text
    assert max(len(line) for line in ended.text.splitlines()) <= 80 and ended.stdout.isascii()


def test_help_lists_the_commands() -> None:
    text = hvproto("--help").text
    assert all(f"\n  {command} " in text for command in ("run", "boot", "guests", "claims"))


def test_guests_has_one_line_for_each() -> None:
    lines = hvproto("guests").text.splitlines()
    assert [line.split()[0] for line in lines] == [kernel.name for kernel in bundled.kernels()]
    assert [line.split()[1] for line in lines].count("host") == 1
    assert all(len(line.split()) > 3 for line in lines)


def test_guests_as_json() -> None:
    rows = json.loads(hvproto("guests", "--json").stdout)
    assert [row["name"] for row in rows] == [kernel.name for kernel in bundled.kernels()]
    assert rows[0]["kind"] == "host" and set(rows[0]) == {"name", "kind", "path", "description"}


def test_parts_are_no_kernels() -> None:
    names = {kernel.name for kernel in bundled.kernels()}
    assert names >= {"host", "guest", "hello", "exit", "forever", "spin", "triple"} and "greedy" not in names


def test_an_unknown_kernel() -> None:
    assert bundled.find("nobody") is None
    with pytest.raises(BadInput, match=r"nobody.*hello"):
        bundled.kernel_path("nobody")
