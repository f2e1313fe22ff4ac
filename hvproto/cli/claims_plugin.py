"""A pytest plugin that notes which claim each test shows and how it ended; `hvproto claims` reads the note.

Load it with ``-p hvproto.cli.claims_plugin --claims-report FILE``. Works in one process and with
pytest-xdist, where tests run in other processes and only reports come back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "hvproto-claims"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--claims-report", metavar="FILE", help="write the outcome of each claim's tests to FILE as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "claim(number, ...): shows these claims of WO 02/50664")
    path = config.getoption("--claims-report")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ClaimsReport(Path(path)), "hvproto-claims-report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's claims travel with its reports."""
    for item in items:
        numbers = sorted(
            {number for mark in item.iter_markers("claim") for number in mark.args if isinstance(number, int)}
        )
        if numbers:
            item.user_properties.append((PROPERTY, numbers))


class ClaimsReport:
    """Gathers outcomes: a test has passed if its call has and nothing failed; failures keep their reason."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, dict[str, Any]] = {}
        self._broken: list[dict[str, str]] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._broken.append({"test": report.nodeid, "reason": _reason(report)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        claims = dict(report.user_properties).get(PROPERTY, [])
        test = self._tests.setdefault(
            report.nodeid, {"test": report.nodeid, "claims": claims, "outcome": "skipped", "reason": ""}
        )
        if report.failed:
            test["outcome"] = "failed"
            test["reason"] = test["reason"] or _reason(report)
        elif report.when == "call" and test["outcome"] != "failed":
            test["outcome"] = str(report.outcome)

    def pytest_sessionfinish(self) -> None:
        tests = [self._tests[name] for name in sorted(self._tests)]
        self._path.write_text(json.dumps({"tests": tests, "broken": self._broken}), encoding="utf-8")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The last line of what pytest has to say: the error itself."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else report.longreprtext
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "failed"
    return lines[0] if crash is not None else lines[-1]
