"""The operator: has the session do what the interface wants, one thing after another, on a thread of its own.

No process with threads forks: the session's first process is made before this thread, all others by processes of the
run, which have none. The interface goes on meanwhile; through a pipe it can interrupt what is being done, or leave.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hvproto.debugger.gdb.server import GdbServer
from hvproto.debugger.gdb.stub import Ended
from hvproto.debugger.repl.console import Console
from hvproto.debugger.session import DebugSession
from hvproto.debugger.tui.frame import Frame, Request, collect
from hvproto.errors import HvprotoError

_INTERRUPT, _LEAVE = b"i", b"q"


class Leaving(Exception):
    """What was being done isn't wanted any more: the debugger ends."""


class Output:
    """What the kernels have printed and nobody has fetched yet: whose, and the bytes."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, bytes]] = []

    def __call__(self, whose: str, data: bytes) -> None:
        self._parts.append((whose, data))

    def fetch(self) -> list[tuple[str, bytes]]:
        """All parts, in their order, once."""
        count = len(self._parts)  # another thread may add some meanwhile
        parts = self._parts[:count]
        del self._parts[:count]
        return parts


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has come of a line: its answer or an error, and the run as it stands then, if it can be looked at."""

    answer: str
    error: str
    frame: Frame | None
    done: bool
    """Whether the line ends the debugger."""


class Operator:
    """To be closed before the session is. ``endpoint``: where GDB is served beside the interface, if it is."""

    def __init__(self, session: DebugSession, output: Output, endpoint: tuple[str, int] | None = None) -> None:
        """Raises BadInput if nobody can listen at the endpoint."""
        self.output = output
        self._console = Console(session, lambda _text: None)
        self._server = None if endpoint is None else GdbServer(self._console, endpoint)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hvproto-session")
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._ear, False)
        session.timeline.visitors[self._ear] = self._hear
        self._leaving = False

    @property
    def session(self) -> DebugSession:
        return self._console.debug

    async def perform(self, line: str, request: Request) -> Outcome:
        """Execute a line of the prompt, and look at the run. Raises Leaving."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._perform, line, request)

    @property
    def gdb_address(self) -> tuple[str, int] | None:
        """Where GDB is served."""
        return None if self._server is None else self._server.address

    @property
    def gdb_sockets(self) -> list[int]:
        """The descriptors that can be read when GDB wants something. Not while something is being done."""
        return [] if self._server is None else self._server.sockets

    async def attend(self, request: Request) -> Outcome:
        """Do what GDB wants; look at the run if that may have changed it. Raises Leaving."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._attend, request)

    def interrupt(self) -> None:
        """Stop a run that is under way."""
        os.write(self._mouth, _INTERRUPT)

    def close(self) -> None:
        """Drop what is being done, and end the thread."""
        self._leaving = True
        os.write(self._mouth, _LEAVE)
        self._thread.shutdown()
        if self._server is not None:
            self._server.close()
        del self.session.timeline.visitors[self._ear]
        os.close(self._ear)
        os.close(self._mouth)

    # -- on the thread -----------------------------------------------------------------------

    def _perform(self, line: str, request: Request) -> Outcome:
        self._forget_what_came_late()
        answer = error = ""
        try:
            answer = self._console.execute(line)
        except HvprotoError as failure:
            error = str(failure)
        if self._console.done:
            return Outcome(answer, error, None, True)
        return self._look(answer, error, request)

    def _attend(self, request: Request) -> Outcome:
        self._forget_what_came_late()
        server = self._server
        assert server is not None
        before, changes, error = server.is_connected, False, ""
        try:
            changes = server.attend()
        except Ended:
            pass  # here, GDB only goes: the run is whose the screen is
        except HvprotoError as failure:
            error = str(failure)
        news = "" if before == server.is_connected else "gdb is connected" if server.is_connected else "gdb has gone"
        return self._look(news, error, request) if changes else Outcome(news, error, None, False)

    def _look(self, answer: str, error: str, request: Request) -> Outcome:
        try:
            return Outcome(answer, error, self.session.call(collect, request), False)
        except HvprotoError as failure:
            return Outcome(answer, error or str(failure), None, False)

    def _forget_what_came_late(self) -> None:
        """An interruption that found nothing to interrupt."""
        if self._leaving:
            raise Leaving
        self._read()

    def _read(self) -> bytes:
        try:
            return os.read(self._ear, 64)
        except BlockingIOError:
            return b""

    def _hear(self) -> None:
        """Called while the run is waited for."""
        heard = self._read()
        if self._leaving or _LEAVE in heard:
            raise Leaving
        if heard:
            self.session.timeline.interrupt()
