"""The prompt at a terminal, with history and completion; needs prompt_toolkit (`pip install 'hvproto[debug]'`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.history import FileHistory, InMemoryHistory

from hvproto.debugger.repl.completion import completions
from hvproto.debugger.repl.typed import Ask


class CommandCompleter(Completer):
    """Completes commands, and the words that they know."""

    def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
        word = document.get_word_before_cursor(WORD=True)
        for each in completions(document.text_before_cursor):
            yield Completion(each, start_position=-len(word))


def make_prompt(prompt: str) -> Ask:
    """A function that asks for a line."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hvproto"
    history: Any
    try:
        folder.mkdir(parents=True, exist_ok=True)
        history = FileHistory(str(folder / "debug_history"))
    except OSError:
        history = InMemoryHistory()
    session: PromptSession[str | None] = PromptSession(history=history, completer=CommandCompleter())
    begun = ""

    def ask(sockets: list[int]) -> str | None:
        nonlocal begun
        session.app.erase_when_done = False

        def watch() -> None:
            loop = asyncio.get_running_loop()

            def leave() -> None:
                nonlocal begun
                for each in sockets:
                    loop.remove_reader(each)
                if session.app.is_running and not session.app.is_done:
                    begun = session.default_buffer.text
                    session.app.erase_when_done = True  # it is asked anew, below what is said meanwhile
                    session.app.exit(result=None)

            for each in sockets:
                loop.add_reader(each, leave)

        text, begun = begun, ""
        return session.prompt(prompt, default=text, pre_run=watch)

    return ask
