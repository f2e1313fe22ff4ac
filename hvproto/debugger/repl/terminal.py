"""The prompt at a terminal, with history and completion; needs prompt_toolkit (`pip install 'hvproto[debug]'`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.history import FileHistory, InMemoryHistory

from hvproto.debugger.repl.completion import completions


class CommandCompleter(Completer):
    """Completes commands, and the words that they know."""

    def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
        word = document.get_word_before_cursor(WORD=True)
        for each in completions(document.text_before_cursor):
            yield Completion(each, start_position=-len(word))


def make_prompt(prompt: str) -> Callable[[], str]:
    """A function that asks for a line."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hvproto"
    history: Any
    try:
        folder.mkdir(parents=True, exist_ok=True)
        history = FileHistory(str(folder / "debug_history"))
    except OSError:
        history = InMemoryHistory()
    session: PromptSession[str] = PromptSession(history=history, completer=CommandCompleter())
    return lambda: str(session.prompt(prompt))
