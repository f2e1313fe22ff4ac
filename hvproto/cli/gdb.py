"""`--gdb` of run and boot: a GDB server instead of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from hvproto.debugger.gdb.server import GdbServer, parse_endpoint
from hvproto.debugger.repl.console import Console
from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build


def serve_gdb(build: Build, place: str, on_output: Callable[[str, bytes], None]) -> None:
    """Serve until GDB kills the run or lets it go. Raises BadInput, and Exit with the run's exit status."""
    endpoint = parse_endpoint(place)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with DebugSession(build, on_output) as session:
        server = GdbServer(Console(session, say), endpoint)
        host, port = server.address
        say(f"waiting for gdb: target remote {host}:{port}")
        try:
            server.serve()
        finally:
            server.close()
    raise typer.Exit(session.stop.status or 0)


def guest_to_stdout(whose: str, data: bytes) -> None:
    """A guest's output as it is; the host's isn't shown."""
    if whose == "guest":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
