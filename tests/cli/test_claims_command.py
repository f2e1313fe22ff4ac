"""`hvproto claims` over made-up test trees: what it counts, and what it makes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hvproto.cli import claims
from hvproto.cli.claim_words import CLAIM_WORDS
from tests.support.command import ROOT, environment, write

TESTS = """
import pytest

@pytest.mark.claim(1, 2)
def test_both(): pass

@pytest.mark.claim(2)
def test_wrong(): assert 1 == 2, "the reason"

@pytest.mark.claim(3)
@pytest.mark.skip
def test_skipped(): pass

@pytest.mark.claim(4)
@pytest.mark.parametrize("plan", ["a", "b"])
def test_twice(plan): pass

@pytest.fixture
def broken():
    yield
    raise RuntimeError("at the end")

@pytest.mark.claim(5)
def test_teardown(broken): pass
"""


def noted(tmp_path: Path, content: str, *options: str) -> dict[str, Any]:
    """What the plugin notes of a file of tests."""
    write(tmp_path, "test_made_up.py", content)
    report = tmp_path / "note.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "hvproto.cli.claims_plugin", "--claims-report", report, *options],
        cwd=tmp_path, env={**environment(), "PYTEST_ADDOPTS": ""}, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    return dict(json.loads(report.read_text()))


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "in parallel"])
def test_results_by_claim(tmp_path: Path, options: tuple[str, ...]) -> None:
    note = noted(tmp_path, TESTS, *options)
    found = {claim.claim: claim for claim in claims._by_claim(note["tests"])}
    assert {number: claim.result for number, claim in found.items() if number <= 6} == {
        1: "passed", 2: "failed", 3: "missing", 4: "passed", 5: "failed", 6: "missing",
    }  # fmt: skip
    assert [test.sentence for test in found[4].tests] == ["twice [a]", "twice [b]"]
    assert [test.outcome for test in found[2].tests] == ["passed", "failed"]
    assert "the reason" in found[2].tests[1].reason and "at the end" in found[5].tests[0].reason
    assert note["broken"] == []


def test_a_file_that_cannot_be_imported(tmp_path: Path) -> None:
    note = noted(tmp_path, "import no_such_module_anywhere")
    assert note["tests"] == [] and "no_such_module_anywhere" in note["broken"][0]["reason"]


def command_over(tree: Path, *options: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """`hvproto claims` of a package that stands in ``tree``, where a module may be missing."""
    (tree / "hvproto").symlink_to(ROOT / "hvproto")
    code = (
        "import importlib.util, pathlib, sys\n"
        "import hvproto.cli.claims as claims\n"
        f"claims._PACKAGE = pathlib.Path({str(tree / 'hvproto')!r})\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {without!r} else find(name, *rest)\n"
        f"sys.argv[1:] = ['claims', *{options!r}]\n"
        "from hvproto.cli.main import main\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tree, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def made_up_tree(tmp_path: Path, content: str) -> Path:
    folder = tmp_path / "tests" / "claims"
    folder.mkdir(parents=True)
    write(folder, "test_made_up.py", content)
    return tmp_path


def test_all_thirty_hold(tmp_path: Path) -> None:
    numbers = ", ".join(map(str, CLAIM_WORDS))
    tree = made_up_tree(tmp_path, f"import pytest\n@pytest.mark.claim({numbers})\ndef test_all(): pass\n")
    done = command_over(tree)
    assert done.returncode == 0 and "30 claims: 30 passed, 0 failed, 0 missing" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout


def test_some_do_not_hold(tmp_path: Path) -> None:
    done = command_over(made_up_tree(tmp_path, TESTS))
    assert done.returncode == 1 and "30 claims: 2 passed, 2 failed, 26 missing" in done.stdout
    assert "- wrong (failed)" in done.stdout and "::test_wrong" in done.stdout and "the reason" in done.stdout


def test_guests_of_both_widths_are_counted(tmp_path: Path) -> None:
    tree = made_up_tree(tmp_path, TESTS)
    write(tree / "tests" / "claims", "test_made_up_64.py", TESTS)
    done = command_over(tree)
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["4"])
    assert row[-3:] == ["2", "2", "passed"]
    for bits in (32, 64):
        assert f"with a guest of {bits} bits: 3 of them, by 3 tests" in done.stdout


@pytest.mark.parametrize("bits", claims.WIDTHS)
def test_every_claim_has_a_test_with_a_guest_of_each_width(bits: int) -> None:
    files = (
        path for path in (ROOT / "tests" / "claims").glob("test_*.py") if path.stem.endswith("_64") == (bits == 64)
    )
    marks = re.findall(r"mark\.claim\(([\d, ]+)\)", "".join(path.read_text(encoding="utf-8") for path in files))
    assert {int(number) for mark in marks for number in mark.split(",")} == set(CLAIM_WORDS)


def test_as_json(tmp_path: Path) -> None:
    done = command_over(made_up_tree(tmp_path, TESTS), "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["holds"] is False and len(result["claims"]) == 30
    assert result["claims"][0]["result"] == "passed" and set(result["claims"][0]) == {
        "claim",
        "words",
        "tests",
        "result",
    }


def test_without_pytest(tmp_path: Path) -> None:
    done = command_over(made_up_tree(tmp_path, TESTS), without="pytest")
    assert done.returncode == 2 and "pip install 'hvproto[test]'" in done.stderr and "Traceback" not in done.stderr


def test_without_the_tests(tmp_path: Path) -> None:
    done = command_over(tmp_path)
    assert done.returncode == 2 and "the claim tests are missing" in done.stderr


def test_the_words_are_short_and_complete() -> None:
    assert list(CLAIM_WORDS) == list(range(1, 31))
    assert all(20 < len(words) < 120 for words in CLAIM_WORDS.values())
    assert len(set(CLAIM_WORDS.values())) == 30 and os.linesep not in "".join(CLAIM_WORDS.values())
