"""The full-screen debugger from beginning to end: whatever ends it, the terminal is as it was and all processes go."""

from __future__ import annotations

import asyncio
import signal
import sys

from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.tui.app import DebugApp
from hvproto.debugger.tui.operator import Operator, Output
from hvproto.errors import BadInput


def run_tui(build: Build, script: list[str], endpoint: tuple[str, int] | None = None) -> None:
    """Until somebody quits, or the process is told to end; with GDB served at an endpoint meanwhile.

    Raises BadInput without a terminal, and if nobody can listen at the endpoint.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput("--tui needs a terminal; scripts and pipes are for `hvproto debug` without it")
    output = Output()
    with DebugSession(build, output) as session:  # forks: no thread may have begun before
        operator = Operator(session, output, endpoint)
        try:
            asyncio.run(_run(DebugApp(operator, script)))
        finally:
            operator.close()


async def _run(app: DebugApp) -> None:
    """SIGHUP is left to the system: the terminal has gone, to write to it could block, and the processes of the run end
    with their sockets."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.exit)
    await app.run_async()
