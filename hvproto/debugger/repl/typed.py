"""Lines from standard input, a terminal or a pipe; GDB is attended to while the next one is waited for."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from hvproto.debugger.repl.console import PROMPT

Ask = Callable[[list[int]], str | None]
"""Asks for a line at a terminal. None: one of these descriptors can be read; what was typed so far is kept."""


class Visitors(Protocol):
    """Somebody else who may want something: `gdb.beside.Beside`."""

    @property
    def sockets(self) -> list[int]: ...
    def attend(self) -> None: ...


class Nobody:
    """Nobody else wants anything."""

    sockets: list[int] = []  # noqa: RUF012

    def attend(self) -> None:
        pass


def typed_lines(visitors: Visitors) -> Iterator[str]:
    """Line after line, with history and completion if it is a terminal and prompt_toolkit is there."""
    if not sys.stdin.isatty():
        yield from _piped_lines(visitors)
        return
    ask = _asker()
    while True:
        try:
            line = ask(visitors.sockets)
            if line is None:
                visitors.attend()
            else:
                yield line
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def _piped_lines(visitors: Visitors) -> Iterator[str]:
    rest = b""
    while True:
        _wait(sys.stdin.fileno(), visitors)
        data = os.read(sys.stdin.fileno(), 0x10000)
        *lines, rest = (rest + data).split(b"\n")
        if not data and rest:
            lines, rest = [rest], b""
        yield from (line.decode("utf-8", "replace").rstrip("\r") for line in lines)
        if not data:
            return


def _wait(descriptor: int, visitors: Visitors) -> None:
    """Until there is something to read, or the end of it."""
    while True:
        ready = select.select([descriptor, *visitors.sockets], [], [])[0]
        if ready != [descriptor]:
            visitors.attend()
        else:
            return


def _asker() -> Ask:
    try:
        from hvproto.debugger.repl.terminal import make_prompt
    except ImportError:
        return _ask_plainly
    return make_prompt(PROMPT)


def _ask_plainly(sockets: list[int]) -> str | None:
    """The terminal keeps what is typed until Enter."""
    if not sockets:
        return input(PROMPT)
    print(PROMPT, end="", flush=True)
    if sys.stdin.fileno() not in select.select([sys.stdin.fileno(), *sockets], [], [])[0]:
        print()
        return None
    return input()
