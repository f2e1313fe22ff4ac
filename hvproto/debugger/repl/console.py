"""The debugger's prompt: lines from a person, a script or a pipe; each gets its answer as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from hvproto.debugger.inspect.history import Snapshot
from hvproto.debugger.repl import looking, moving, stopping
from hvproto.debugger.repl.command import COMMANDS
from hvproto.debugger.session import DebugSession
from hvproto.errors import BadInput, HvprotoError

PROMPT = "(hvproto) "
REPEATED = ("step", "next", "continue", "back", "back-continue", "trace")
"""What an empty line repeats."""
_COMMENT = re.compile(r"(?:^|\s)#")
_PARTS = (looking, moving, stopping)


class Console:
    """Executes lines on a debugging session."""

    def __init__(self, debug: DebugSession, say: Callable[[str], None] = print) -> None:
        self.debug = debug
        self.say = say
        self.snapshots: dict[str, Snapshot] = {}
        self.done = False
        self._last = ""

    def execute(self, line: str) -> str:
        """The answer to one line; what follows a `#` is a comment. Raises HvprotoError."""
        line = _COMMENT.split(line)[0].strip()
        if not line:
            line = self._last
        if not line:
            return ""
        word, _, argument = line.partition(" ")
        command = COMMANDS.find(word)
        self._last = line if command.name in REPEATED else ""
        return command.handler(self, argument.strip())

    def run_lines(self, lines: Iterable[str], say: Callable[[str], None], *, echoes: bool, strict: bool) -> None:
        """Execute line after line until there are no more, or `quit`.

        ``echoes``: each line is shown before its answer. ``strict``: raise the first error instead of telling it.
        """
        for line in lines:
            if echoes and line.strip():
                say(PROMPT + line.strip())
            try:
                answer = self.execute(line) if line.strip() or not echoes else ""
            except HvprotoError as error:
                if strict:
                    raise
                answer = f"{error}"
            if answer:
                say(answer)
            if self.done:
                return


def script_lines(path: str) -> list[str]:
    """The lines of a script. Raises BadInput."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None
