"""Failures as a person should see them: one paragraph on stderr and an exit status, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

from hvproto.errors import HvprotoError

Parameters = ParamSpec("Parameters")

INTERRUPTED = 128 + 2
"""Exit status after SIGINT, as a shell has it."""
BROKEN_PIPE = 128 + 13
"""Exit status after SIGPIPE: whoever read our stdout has gone."""
MEANINGS = {
    0: "all went well",
    1: "a kernel came to grief",
    2: "the input can't be used",
    3: "the engine can't be used as asked",
    INTERRUPTED: "ended by Ctrl-C",
    BROKEN_PIPE: "whoever read our output has gone",
}
"""Exit statuses in words, as `hvproto --help` has them; others are a kernel's own."""


@contextmanager
def reporting() -> Iterator[None]:
    """Turn what a command raises into a message and an exit status.

    Whatever isn't expected keeps its traceback: that is a defect of ours, and the traceback is the report.
    """
    try:
        yield
        sys.stdout.flush()
    except SystemExit as end:
        _finish(end)
    except HvprotoError as error:
        _end(str(error), error.exit_status)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_stdout()
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as error:
        _end(_of_the_system(error), 1)


def reported(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """A command whose failures are reported before the command-line library has its own way with them."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        with reporting():
            command(*arguments, **options)

    return run


def _finish(end: SystemExit) -> NoReturn:
    """A regular end, unless the last of the output can't be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise SystemExit(end.code or BROKEN_PIPE) from None
    except OSError as error:
        _end(_of_the_system(error), 1)
    raise end


def _end(message: str, status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
    print(f"hvproto: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def _of_the_system(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"


def _drop_stdout() -> None:
    """Let the interpreter's own last flush go nowhere instead of failing once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
