"""Ctrl-C while the engine runs.

A signal handler of Python runs wherever Python code runs next, which may be a hook that the engine's
C code has called; an exception that is raised there is lost. There the interrupt must be left to the
engine, which ends its run with it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hvproto.processor.engine import Engine


@contextmanager
def interruptible(engine: Engine) -> Iterator[None]:
    """Make SIGINT end a run of this engine with KeyboardInterrupt. Where SIGINT is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    run = type(engine).run.__code__

    def on_signal(_number: int, frame: FrameType | None) -> None:
        caller = frame.f_back if frame is not None else None
        while caller is not None:
            if caller.f_code is run:
                engine.failure = KeyboardInterrupt()
                engine.stop()
                return
            caller = caller.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
