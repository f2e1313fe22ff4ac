"""Entry point of the command `hvproto`: the one place where failures become messages."""

from __future__ import annotations

from hvproto.cli.failures import reporting


def main() -> None:
    """Run the command line; ends the process with the status that the command line's contract promises."""
    with reporting():
        # Here, since an interrupt may come while the engine is being imported.
        from hvproto.cli.app import app

        app(prog_name="hvproto")
