"""What the README says is true: its commands are those that CI runs, its script runs, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT, environment, hvproto

README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8") if (ROOT / ".ci" / "run").exists() else ""
MARKED = dict(re.findall(r"<!-- run: (\w+) -->\n```\w+\n(.*?)```", README, re.DOTALL))
BLOCKS = re.findall(r"^```\w+$", README, re.MULTILINE)
BY_CI = re.findall(r'^eval "\$\(readme (\w+)\)"', CI, re.MULTILINE)


def test_the_promised_commands() -> None:
    assert MARKED["main"].strip() == "pip install . && hvproto run"
    assert MARKED["test"].strip() == "pip install '.[test]' && pytest"


def test_nothing_stands_there_unrun() -> None:
    assert len(BLOCKS) == len(MARKED)
    assert sorted([*BY_CI, "python", "kit", "commands", "debug"]) == sorted(MARKED)


def test_ci_finds_the_commands() -> None:
    function = re.search(r"^readme\(\) \{.*?^\}$", CI, re.MULTILINE | re.DOTALL)
    assert function is not None
    for name in BY_CI:
        done = subprocess.run(
            ["bash", "-c", f"{function[0]}\nreadme {name}"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == MARKED[name].strip()


def test_the_hook(tmp_path_factory: pytest.TempPathFactory) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MARKED["python"]],
        cwd=tmp_path_factory.mktemp("elsewhere"), env=environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"the region was in (\d+) places; reflected: \[(.*)\]\n", done.stdout)
    assert found is not None and int(found[1]) >= 3 and {"0", "14"} <= set(found[2].split(", "))
    assert len([line for line in MARKED["python"].splitlines() if line.strip()]) <= 20


def test_the_steps_through_a_switch(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "commands").write_text(MARKED["debug"], encoding="utf-8")
    ended = hvproto("debug", "-x", "commands", "--batch", cwd=folder)
    assert (ended.status, ended.stderr) == (0, "")
    assert len(MARKED["debug"].splitlines()) <= 15
    answers = ended.stdout.decode().split("(hvproto) ")
    tables = [
        {line.split()[0]: line.split()[-1] for line in answer.splitlines()[2:]}
        for answer in answers
        if answer.startswith("settings")
    ]
    owners = [(table["CR3"], table["IDTR"]) for table in tables]
    assert owners == [("host's", "hypervisor's"), ("host's", "host's")]
    moved = next(answer for answer in answers if answer.startswith("map"))
    now = re.search(r"the region: (\w+) to", moved)
    before = re.search(r"until event Relocated at cycle [\d,]+: (\w+) to", moved)
    assert now is not None and before is not None and now[1] != before[1]
    assert re.search(rf"^{now[1]} .* REGION", moved, re.MULTILINE)
    assert re.search(rf"{before[1]} +{now[1]} ", next(answer for answer in answers if answer.startswith("conflicts")))


@pytest.mark.parametrize("options", [(), ("--hv-relocate-every", "3")])
def test_the_kit(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_idea.py").write_text(MARKED["kit"], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout
    assert len([line for line in MARKED["kit"].splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize("line", MARKED["commands"].splitlines())
def test_a_command(line: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    name, *arguments = shlex.split(line)
    assert name == "hvproto"
    ended = hvproto(*arguments, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert (ended.status, ended.stderr) == (0, "") and ended.stdout


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).is_file()] == []
