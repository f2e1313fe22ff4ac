"""The pane bar: which of the panes is shown that take turns on a small terminal."""

from __future__ import annotations

from rich.text import Text
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from hvproto.debugger.tui import marks
from hvproto.debugger.tui.keys import LOWER, PANES


class PaneBar(Static):
    """A click on a name shows that pane; so does its number."""

    class Chosen(Message):
        """Somebody wants to see a pane."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self) -> None:
        super().__init__(id="pane-bar")
        self._ends: list[tuple[int, str]] = []

    def choose(self, chosen: str) -> None:
        """Mark the pane that is shown."""
        line = Text(no_wrap=True)
        self._ends.clear()
        for key, name in PANES:
            if name in LOWER:
                is_shown = name == chosen
                line.append(f"[{key} {name}]" if is_shown else f" {key} {name} ", marks.STRONGEST if is_shown else "")
                self._ends.append((line.cell_len, name))
        self.update(line)

    def on_click(self, event: Click) -> None:
        for end, name in self._ends:
            if event.x < end:
                self.post_message(self.Chosen(name))
                return
