"""The command line: takes every command of the prompt, with completion and history."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from hvproto.debugger.repl.completion import completions


def completed(line: str) -> str:
    """The line with its last word completed as far as that is certain.

    >>> completed("goto s"), completed("break Setting")
    ('goto start', 'break Setting')
    """
    found = completions(line)
    word = line.rpartition(" ")[2]
    if not found:
        return line
    shortest = min(found, key=len)
    same = next(
        (count for count, letters in enumerate(zip(*found, strict=False)) if len(set(letters)) > 1), len(shortest)
    )
    return line[: len(line) - len(word)] + shortest[:same]


class _Suggestions(Suggester):
    """The first of the words that the last one could become."""

    async def get_suggestion(self, value: str) -> str | None:
        found = completions(value)
        word = value.rpartition(" ")[2]
        return value[: len(value) - len(word)] + found[0] if word and found else None


class CommandLine(Input):
    """Enter hands the line over, Esc leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("tab", "complete", show=False),
        Binding("up", "recall(-1)", show=False),
        Binding("down", "recall(1)", show=False),
    ]

    class Left(Message):
        """The keys are for the panes again."""

    def __init__(self) -> None:
        super().__init__(
            id="command", placeholder=": to type a command; help lists them", compact=True, select_on_focus=False,
            suggester=_Suggestions(use_cache=False, case_sensitive=True),
        )  # fmt: skip
        self._history: list[str] = []
        self._recalled = 0

    def remember(self, line: str) -> None:
        """Add a line to the history, and be empty."""
        if line.strip() and self._history[-1:] != [line]:
            self._history.append(line)
        self._recalled = len(self._history)
        self.value = ""

    def action_recall(self, count: int) -> None:
        self._recalled = min(max(0, self._recalled + count), len(self._history))
        self.value = self._history[self._recalled] if self._recalled < len(self._history) else ""
        self.cursor_position = len(self.value)

    def action_complete(self) -> None:
        self.value = completed(self.value)
        self.cursor_position = len(self.value)

    def action_leave(self) -> None:
        self.post_message(self.Left())
