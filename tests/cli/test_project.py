"""A project's own kernels by name, from its pyproject.toml."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import hvproto, write

KERNEL = ".origin 0x100000\n.entry start\nstart: mov al, 'k'\nout 0xe9, al\nmov al, 4\nout 0xf4, al\nhlt\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the project: two levels below its pyproject.toml."""
    (tmp_path / "kernels").mkdir()
    write(tmp_path / "kernels", "mine.asm", KERNEL)
    write(tmp_path, "pyproject.toml", '[tool.hvproto.guests]\nown = "kernels/mine.asm"\nhello = "kernels/mine.asm"\n')
    below = tmp_path / "tests" / "deep"
    below.mkdir(parents=True)
    return below


def test_by_its_name_from_anywhere_below(folder: Path) -> None:
    for arguments in (("boot", "own"), ("run", "--quiet", "--guest", "own")):
        ended = hvproto(*arguments, cwd=folder)
        assert (ended.status, ended.stdout, ended.stderr) == (9, b"k", "")


def test_it_goes_before_a_bundled_one_and_a_file_before_it(folder: Path) -> None:
    assert hvproto("boot", "hello", cwd=folder).stdout == b"k"
    write(folder, "hello", KERNEL.replace("'k'", "'f'"))
    assert hvproto("boot", "hello", "--limit", 1_000_000, cwd=folder).status != 9, (
        "a file without an ending is a flat image"
    )


def test_it_is_listed(folder: Path) -> None:
    rows = json.loads(hvproto("guests", "--json", cwd=folder).stdout)
    assert [(row["name"], row["kind"]) for row in rows[:2]] == [("hello", "guest"), ("own", "guest")]
    assert any(row["name"] == "host" and row["kind"] == "host" for row in rows)
    assert "own" in hvproto("boot", "nothing", cwd=folder).stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[tool.hvproto.guests]\nown = 3", "tool.hvproto.guests.own must be a kernel's file, not 3"),
        ("[tool]\nhvproto = 1", "tool.hvproto must be a table"),
        ("[tool.hvproto", "pyproject.toml: "),
        ('[tool.hvproto.guests]\nown = "gone.asm"', "gone.asm"),
    ],
)
def test_a_bad_table(folder: Path, content: str, words: str) -> None:
    write(folder, "pyproject.toml", content)
    ended = hvproto("boot", "own", cwd=folder)
    assert ended.status == 2 and words in ended.stderr
