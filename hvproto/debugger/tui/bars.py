"""Two bars of words: the panes that take turns on a small terminal, and the most needed keys. A click is as a key."""

from __future__ import annotations

from rich.text import Text
from textual.events import Click
from textual.widgets import Static

from hvproto.debugger.tui import marks
from hvproto.debugger.tui.keys import KEYS, LOWER, PANES


class _Bar(Static):
    """Words in a line, each with the action of the app that a click on it is."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._ends: list[tuple[int, str]] = []

    def tell(self, words: list[tuple[Text, str]]) -> None:
        line = Text(no_wrap=True)
        self._ends.clear()
        for word, action in words:
            line.append_text(word)
            self._ends.append((line.cell_len, action))
        self.update(line)

    async def on_click(self, event: Click) -> None:
        action = next((action for end, action in self._ends if event.x < end), None)
        if action is not None:
            await self.app.run_action(action)


class PaneBar(_Bar):
    """Brackets are around the pane that is shown."""

    def __init__(self) -> None:
        super().__init__("pane-bar")

    def choose(self, chosen: str) -> None:
        """Mark the pane that is shown."""
        words = []
        for key, name in PANES:
            if name in LOWER:
                word = Text(f"[{key} {name}]", marks.STRONGEST) if name == chosen else Text(f" {key} {name} ")
                words.append((word, f"pane('{name}')"))
        self.tell(words)


class KeyBar(_Bar):
    """The keys that have a short word."""

    def __init__(self) -> None:
        super().__init__("key-bar")

    def on_mount(self) -> None:
        keys = [key for key in KEYS if key.short]
        self.tell([(Text.assemble((key.shown, marks.STRONG), f" {key.short}│"), key.action) for key in keys])
