"""A million events: the page opens and answers, the trace is written piece by piece."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from hvproto.events import Relocated
from hvproto.report.collector import Collector
from hvproto.report.heading import Heading
from hvproto.report.trace import Trace
from hvproto.report.writer import write_page
from tests.report.browser import number, opened, settled, shown_range
from tests.report.million import long_run

MILLION = 1_000_000
HEADING = Heading("mirrored", "host", ["guest"])


def test_a_page_of_a_million_events_opens_and_answers(browser: Any, tmp_path: Path) -> None:
    collector, relocations = Collector(HEADING), 0
    for event in long_run(MILLION):
        collector.on_event(event)
        relocations += isinstance(event, Relocated)
    path = tmp_path / "million.html"
    with path.open("w", encoding="utf-8") as file:
        write_page(file, collector)
    assert path.stat().st_size < 12_000_000
    with opened(browser, path) as page:
        assert number(page.inner_text("#events")) == MILLION
        assert number(page.inner_text("#relocations")) == relocations > 5_000
        assert shown_range(page) == (0, collector.now)
        page.keyboard.press("e")
        assert shown_range(page) == (1, MILLION)
        for _ in range(20):
            page.keyboard.press("+")
        first, last = shown_range(page)
        assert last - first <= 10 and abs(first - MILLION / 2) < 20
        page.hover("#lanes", position={"x": 500, "y": 46 + 34})
        settled(page)
        assert page.inner_text("#tip").startswith(("event ", "guest has", "hypervisor has", "host has"))
        page.keyboard.press("0")
        page.keyboard.press("t")
        assert shown_range(page) == (0, collector.now)


class Counted(io.TextIOBase):
    """Remembers how much it was given at once, and nothing else."""

    longest = total = 0

    def write(self, text: str) -> int:
        self.longest, self.total = max(self.longest, len(text)), self.total + len(text)
        return len(text)


def test_a_trace_is_never_in_memory() -> None:
    file = Counted()
    trace = Trace(HEADING, file.write)
    for event in long_run(100_000):
        trace.on_event(event)
    trace.end()
    assert file.longest < 1000 and file.total > 10_000_000
    assert all(len(json.dumps(value, default=str)) < 10_000 for value in vars(trace).values())
