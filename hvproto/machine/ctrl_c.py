"""Ctrl-C while the engine runs.

Python would raise KeyboardInterrupt in whatever Python code runs next. That is often the first moment of a callback
from C, where nothing can catch it and it is lost. So for the time of a run, Ctrl-C only asks the processor to stop.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_ctrl_c(request_stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Gives a function that raises the KeyboardInterrupt that is due, if any; to be called between two runs.

    Does nothing outside the main thread, or where somebody else handles the signal.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield lambda: None
        return
    due = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal due
        if due:
            raise KeyboardInterrupt  # pressed again: at once, wherever we are
        due = True
        request_stop()

    def check() -> None:
        nonlocal due
        if due:
            due = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
