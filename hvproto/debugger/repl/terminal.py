"""The prompt at a terminal, with history and completion; needs prompt_toolkit (`pip install 'hvproto[debug]'`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.history import FileHistory, InMemoryHistory

from hvproto.debugger.repl.command import COMMANDS
from hvproto.debugger.session import EVENT_KINDS
from hvproto.errors import World
from hvproto.processor.settings import Setting

_ARGUMENTS = {
    "step": ("instruction", "setting", "switch", "exit", "event"),
    "break": (*EVENT_KINDS, "in", "if", *World),
    "watch": (*Setting.__members__, "in", "if", *World),
    "events": ("all", *EVENT_KINDS),
    "regs": tuple(World),
    "idt": ("guest",),
    "gdt": ("guest",),
    "tss": ("guest",),
    "goto": ("start", "end"),
}


class CommandCompleter(Completer):
    """Completes commands, and the words that they know."""

    def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
        before = document.text_before_cursor.lstrip()
        word = document.get_word_before_cursor(WORD=True)
        first, blank, _ = before.partition(" ")
        if not blank:
            known: Iterable[str] = COMMANDS.by_name
        elif first in ("help", "h"):
            known = (*COMMANDS.by_name, "expressions")
        else:
            known = _ARGUMENTS.get(COMMANDS.aliases.get(first, first), ())
        for each in known:
            if each.startswith(word):
                yield Completion(str(each), start_position=-len(word))


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
