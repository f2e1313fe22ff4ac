"""Ctrl-C while the engine runs.

A signal handler of Python runs wherever Python code runs next, which may be a hook that the engine's C code has called;
an exception that is raised there is lost. There, and in some other places, the interrupt must be left to the engine,
which ends its run with it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hvproto.processor.engine import Engine

_PRINTING = "rich."
"""Modules that print. They hold a lock for it, which another thread of theirs waits for: an exception that comes just
as the lock is taken leaves it taken, and that thread is waited for for ever."""
_DROPPED = "__del__"
"""What is raised in it is lost, but for some words on stderr: a context of the engine is let go at each recoupling."""


@contextmanager
def interruptible(engine: Engine) -> Iterator[None]:
    """Make SIGINT end a run of this engine with KeyboardInterrupt. Where SIGINT is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    run = type(engine).run.__code__

    interrupt = KeyboardInterrupt()

    def on_signal(_number: int, frame: FrameType | None) -> None:
        engine.failure = interrupt  # the run that is under way ends with it, or the next one
        engine.stop()
        caller = frame
        while caller is not None:
            runs = caller.f_code is run and caller is not frame
            prints = caller.f_globals.get("__name__", "").startswith(_PRINTING)
            if runs or prints or caller.f_code.co_name == _DROPPED:
                return
            caller = caller.f_back
        raise interrupt

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if engine.failure is interrupt:
            engine.failure = None
