"""What a word at the end of a line could become: commands, and the words that they know."""

from __future__ import annotations

from collections.abc import Iterable

from hvproto.debugger.repl.command import COMMANDS
from hvproto.debugger.session import EVENT_KINDS
from hvproto.errors import World
from hvproto.processor.settings import Setting

_ARGUMENTS = {
    "step": ("instruction", "moment", "setting", "switch", "exit", "event"),
    "break": (*EVENT_KINDS, "in", "if", *World),
    "watch": (*Setting.__members__, "in", "if", *World),
    "events": ("all", *EVENT_KINDS),
    "regs": tuple(World),
    "idt": ("guest",),
    "gdt": ("guest",),
    "tss": ("guest",),
    "goto": ("start", "end"),
}


def completions(before: str) -> list[str]:
    """The words that the last one of this beginning of a line could be.

    >>> import hvproto.debugger.repl.console
    >>> completions("goto s")
    ['start']
    """
    first, blank, rest = before.lstrip().partition(" ")
    word = (rest if blank else first).rpartition(" ")[2]
    known: Iterable[str]
    if not blank:
        known = COMMANDS.by_name
    elif first in ("help", "h"):
        known = (*COMMANDS.by_name, "expressions")
    else:
        known = _ARGUMENTS.get(COMMANDS.aliases.get(first, first), ())
    return [str(each) for each in known if each.startswith(word)]
