"""`hvproto claims`: run the claim tests, and show claim by claim what holds."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvproto.cli.claim_words import CLAIM_WORDS
from hvproto.cli.page import make_console
from hvproto.cli.progress import waiting
from hvproto.errors import BadInput, HvprotoError

_PACKAGE = Path(__file__).resolve().parent.parent
PASSED, FAILED, MISSING = "passed", "failed", "missing"
_NO_TEST_COLLECTED = 5
WIDTHS = (32, 64)
"""Of guests, in bits."""


class ClaimTestsBroken(HvprotoError):
    """pytest itself came to grief."""


@dataclass(frozen=True, slots=True)
class ClaimTest:
    """One test of a claim: its pytest node, how it ended, and why if it failed."""

    test: str
    outcome: str
    reason: str

    @property
    def bits(self) -> int:
        """The guest's width: tests of 64-bit guests are in files that say so by their name's end, ``_64.py``."""
        return 64 if self.test.partition("::")[0].endswith("_64.py") else 32

    @property
    def sentence(self) -> str:
        """The test's name as what it says: words, so that it wraps where words end."""
        name, bracket, parameters = self.test.rpartition("::")[2].partition("[")
        return name.removeprefix("test_").replace("_", " ") + (f" {bracket}{parameters}" if bracket else "")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its tests. It holds if at least one passed and none failed."""

    claim: int
    words: str
    tests: tuple[ClaimTest, ...]

    @property
    def result(self) -> str:
        outcomes = {test.outcome for test in self.tests}
        if FAILED in outcomes:
            return FAILED
        return PASSED if PASSED in outcomes else MISSING

    def passed(self, bits: int) -> int:
        """How many of its tests with a guest of this width have passed."""
        return sum(test.outcome == PASSED and test.bits == bits for test in self.tests)


def claims(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> None:
    """Run the tests of the patent's thirty claims, and show the table.

    A claim is "missing" if no test of it was run. The columns 32 and 64 say how many passed with a guest of so many
    bits. The exit status is 0 if every claim has a test that passed and none that failed, 1 if not, 2 if pytest isn't
    installed.

    \b
    Examples:
      hvproto claims
      hvproto claims --json > claims.json
    """
    if importlib.util.find_spec("pytest") is None:
        raise BadInput("the claim tests need pytest: pip install 'hvproto[test]'")
    note = _run_tests()
    found = _by_claim(note["tests"])
    broken = [f"{each['test']}: {each['reason']}" for each in note["broken"]]
    holds = not broken and all(claim.result == PASSED for claim in found)
    if as_json:
        rows = [{**asdict(claim), "result": claim.result} for claim in found]
        typer.echo(json.dumps({"holds": holds, "claims": rows, "broken": broken}))
    else:
        _show(make_console(), found, broken)
    raise typer.Exit(0 if holds else 1)


def _by_claim(tests: list[dict[str, Any]]) -> list[Claim]:
    return [
        Claim(
            number,
            words,
            tuple(
                ClaimTest(test["test"], test["outcome"], test["reason"]) for test in tests if number in test["claims"]
            ),
        )
        for number, words in CLAIM_WORDS.items()
    ]


# -- running ---------------------------------------------------------------------------------


@contextmanager
def _tree() -> Iterator[Path]:
    """A folder that has the claim tests as `tests/claims`: the source tree, or one made up of the installed copy."""
    installed = _PACKAGE / "_claims"
    if not installed.is_dir():
        if not (_PACKAGE.parent / "tests" / "claims").is_dir():
            raise BadInput(f"the claim tests are missing: neither {installed} nor a source tree's tests/claims exists")
        yield _PACKAGE.parent
        return
    with tempfile.TemporaryDirectory(prefix="hvproto-claims-") as name:
        root = Path(name)
        shutil.copytree(installed, root / "tests" / "claims")
        yield root


def _run_tests() -> dict[str, Any]:
    """What the plugin noted. Raises BadInput without tests, ClaimTestsBroken if pytest gave up."""
    with _tree() as root, tempfile.TemporaryDirectory(prefix="hvproto-claims-") as scratch:
        report = Path(scratch) / "claims.json"
        command = [
            sys.executable, "-m", "pytest", "tests/claims", "-q", "--rootdir", str(root), "--import-mode=importlib",
            "-o", "addopts=", "-o", f"pythonpath={root}", "-p", "no:cacheprovider", "-m", "claim",
            "-p", "hvproto.cli.claims_plugin", "--claims-report", str(report),
        ]  # fmt: skip
        if importlib.util.find_spec("xdist") is not None:
            command += ["-n", "auto"]
        # The tests and the plugin must find the package that is running now, wherever we are.
        search = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTEST_ADDOPTS": ""}
        with waiting("running the claim tests"):
            done = subprocess.run(
                command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                check=False, errors="backslashreplace",
            )  # fmt: skip
        # 2 is what pytest ends with when modules couldn't be imported: the note says which.
        if not report.is_file() or done.returncode not in (0, 1, 2, _NO_TEST_COLLECTED):
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise ClaimTestsBroken(f"pytest could not run the claim tests (status {done.returncode}):\n{last}")
        note: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return note


# -- showing ---------------------------------------------------------------------------------


def _show(console: Console, found: list[Claim], broken: list[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("claim", justify="right", no_wrap=True)
    table.add_column("what it says, in short", ratio=3)
    table.add_column("tests", ratio=3, overflow="fold")
    for bits in WIDTHS:
        table.add_column(str(bits), justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for claim in found:
        names = "\n".join(
            f"- {test.sentence}" + ("" if test.outcome == PASSED else f" ({test.outcome})") for test in claim.tests
        )
        style = {PASSED: "green", FAILED: "red"}.get(claim.result, "yellow")
        passed = (str(claim.passed(bits)) for bits in WIDTHS)
        table.add_row(str(claim.claim), Text(claim.words), Text(names), *passed, Text(claim.result, style=style))
    console.print(table)
    for test in sorted({test for claim in found for test in claim.tests if test.outcome == FAILED}, key=str):
        console.print(f"\nfailed: {test.test}\n    {test.reason}", soft_wrap=True)
    for each in broken:
        console.print(f"\ncould not be collected: {each}", soft_wrap=True)
    numbers = {result: sum(claim.result == result for claim in found) for result in (PASSED, FAILED, MISSING)}
    console.print(f"\n{len(found)} claims: " + ", ".join(f"{number} {result}" for result, number in numbers.items()))
    for bits in WIDTHS:
        shown = sum(claim.passed(bits) > 0 for claim in found)
        console.print(f"with a guest of {bits} bits: {shown} of them, by {_tests_passed(found, bits)} tests")


def _tests_passed(found: list[Claim], bits: int) -> int:
    """A test may be of several claims, and counts once."""
    return len({test.test for claim in found for test in claim.tests if test.outcome == PASSED and test.bits == bits})
