"""The page that the story is written on: who has the processor in the margin, step numbers beside it.

Everything that colour says, words say too. Nothing is wider than the console. Bytes of kernels are
shown as they are where they are printable ASCII, else as escapes.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

HOST, HYPERVISOR, GUEST = "host", "hypervisor", "guest"
STYLES = {HOST: "green", HYPERVISOR: "yellow", GUEST: "cyan"}
_WHO = 14
_STEP = 5
_MARGIN = _WHO + _STEP + 2
_NARROWEST = 20


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout, or on stderr; plain text where that is no terminal or NO_COLOR is set."""
    if os.environ.get("NO_COLOR"):
        return Console(highlight=False, markup=False, emoji=False, stderr=stderr, color_system=None)
    return Console(highlight=False, markup=False, emoji=False, stderr=stderr)


def readable(text: bytes) -> str:
    r"""A kernel's line of output for a person.

    >>> readable(b"caf\xe9\tbar\x1b[2J\r")
    'caf\\xe9    bar\\x1b[2J'
    """
    characters = text.rstrip(b"\r").decode("latin-1").replace("\t", "    ")
    return "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in characters)


class Page:
    """Lines with a margin. ``owner`` has the processor; a line of another's begins with ``>>``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.owner = ""

    @property
    def _text_width(self) -> int:
        return max(_NARROWEST, self.console.width - _MARGIN)

    def chapter(self, owner: str, title: str) -> None:
        """A banner across the page: the processor is handed over."""
        self.owner = owner
        self.console.print()
        if len(title) > self.console.width - 4:
            self.note(title, "bold")
        else:
            self.console.print(Rule(Text(title, style="bold"), align="left", style=STYLES.get(owner, "")))

    def note(self, text: str, style: str = "") -> None:
        """A paragraph across the page."""
        for line in textwrap.wrap(text, self.console.width):
            self._put(line, style)

    def say(self, owner: str, text: str, step: str = "") -> None:
        """Tell something; it is said whether this hands the processor over."""
        who = f">> {owner.upper()}" if owner != self.owner else f"   {owner}"
        self.owner = owner
        lines = textwrap.wrap(text, self._text_width, break_on_hyphens=False) or [""]
        self._put(f"{who:<{_WHO}}{step:>{_STEP}}  {lines[0]}", STYLES[owner])
        for line in lines[1:]:
            self._put(" " * _MARGIN + line, STYLES[owner])

    def printed(self, owner: str, text: bytes) -> None:
        """A line that a kernel printed, marked as its words and cut into as many pieces as it takes."""
        line, width = readable(text), self._text_width + _MARGIN - _WHO
        pieces = [line[start : start + width] for start in range(0, len(line), width)] or [""]
        for number, piece in enumerate(pieces):
            mark = f"{owner} prints:" if number == 0 else "..."
            self._put(f"{mark:>{_WHO - 1}} {piece}", "bold")

    def table(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print()
        self.console.print(table)
        self.console.print()

    def _put(self, line: str, style: str) -> None:
        self.console.print(Text(line, style=style), soft_wrap=True)
