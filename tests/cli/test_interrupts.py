"""Ctrl-C where an exception would do harm, or be lost: in the midst of printing, in `__del__`. The next run raises it."""

from __future__ import annotations

import os
import signal

import pytest

from hvproto.cli.interrupts import interruptible
from tests.support.bench import Bench

_PRESS = "import os, signal\ndef press():\n    os.kill(os.getpid(), signal.SIGINT)\n    return 'printed'\n"


def test_what_prints_goes_on_and_the_next_run_ends() -> None:
    bench = Bench("portable")
    printing: dict[str, object] = {"__name__": "rich.live"}
    exec(_PRESS, printing)
    with interruptible(bench.cpu.engine):
        assert printing["press"]() == "printed"  # type: ignore[operator]
        with pytest.raises(KeyboardInterrupt):
            bench.cpu.run(bench.cpu.now + 1000)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


class Dropped:
    """A thing whose end takes long enough for somebody to press Ctrl-C."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_what_comes_while_something_is_let_go_is_not_lost() -> None:
    bench = Bench("portable")
    with interruptible(bench.cpu.engine):
        Dropped()
        with pytest.raises(KeyboardInterrupt):
            bench.cpu.run(bench.cpu.now + 1000)


def test_what_has_ended_one_run_does_not_end_the_next() -> None:
    bench = Bench("portable")
    with pytest.raises(KeyboardInterrupt), interruptible(bench.cpu.engine):
        os.kill(os.getpid(), signal.SIGINT)
    assert bench.cpu.engine.failure is None
