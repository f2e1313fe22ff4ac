"""A headless Chromium for the tests that look at a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OURS = "willReadFrequently"
"""Chromium's advice to those who read a canvas, which only the tests do."""


@contextmanager
def opened(browser: Browser, path: Path) -> Iterator[Page]:
    """The page, ready, without network; whatever it complains of or asks for fails the test."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if OURS not in message.text else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if not is_local(request.url) else None)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    yield page
    context.close()
    assert complaints == [], complaints


def is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


def settled(page: Page) -> None:
    """Wait until everything is drawn that has been asked for, tables included."""
    page.evaluate(
        "new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 150))"
    )


def shown_range(page: Page) -> tuple[int, int]:
    """What the page says that it shows, first and last."""
    settled(page)
    found = re.match(r"(?:cycles|events) ([\d,]+) to ([\d,]+)", page.inner_text("#range"))
    assert found is not None
    return number(found[1]), number(found[2])


def number(text: str) -> int:
    return int(text.replace(",", ""))


def rows(page: Page, table: str) -> list[list[str]]:
    """The cells of a table's body."""
    cells: list[list[str]] = page.eval_on_selector_all(
        f"#{table} tbody tr", "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return cells
