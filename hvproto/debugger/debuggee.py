"""A debuggee: the process that a run goes on in, and every copy that is forked of it.

At a stop it serves: inspections are functions that it calls with the subject, a fork is a copy of the whole process,
which waits at the same moment of the same run for what it is told. Forking is what makes checkpoints cheap: the copies
share all memory that neither has written to since.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from hvproto.debugger.channel import Channel, Closed
from hvproto.debugger.goal import Goal, Stop
from hvproto.debugger.subject import Build, Subject
from hvproto.debugger.watchman import Watchman
from hvproto.errors import HvprotoError

RECORDING_INTERVAL = 0.15
"""Seconds of a run between two checkpoints, at least: what the first way back has to repeat. With 0.4 it took 0.3 s and
more; with 0.05 the copies that each page is written to for the first time in make a run several times as long."""
RUN_PER_COPY = 20
"""... and so many times what the copy took: a twentieth of a run, also where the machine has others to serve."""


class View:
    """What an inspection is given: the subject, where it stands, and its history."""

    def __init__(self, subject: Subject, watchman: Watchman, stop: Stop) -> None:
        self.subject = subject
        self.watchman = watchman
        self.stop = stop


class Debuggee:
    """Never returns to who has made it: the process ends with its channel."""

    def __init__(self, end: socket.socket) -> None:
        self._channel = Channel(end)
        self._output: dict[str, int] = {}
        self._waiting: list[tuple[str, int, bytearray]] = []
        self._recorded = time.monotonic()
        self._interval = RECORDING_INTERVAL
        self._records = False
        self._watchman: Watchman | None = None
        self._subject: Subject | None = None

    def live(self, build: Build) -> NoReturn:
        """Build the subject and run it, as told; then end."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies
            self._live(build)
        except Closed:
            pass
        except BaseException:
            try:
                self._channel.send(("crashed", traceback.format_exc()))
            except Closed:
                pass
        finally:
            os._exit(0)

    def _live(self, build: Build) -> None:
        try:
            subject = self._subject = build(self._on_output)
        except HvprotoError as error:
            self._channel.send(("failed", error))
            return
        watchman = self._watchman = Watchman(subject, self.prompt, self.breathe)
        gc.freeze()  # a collector that goes over everything would unshare all memory
        try:
            status, reason = subject.run(), "the run has ended"
        except HvprotoError as error:
            status, reason = error.exit_status, str(error)
        watchman.end(reason, status)

    # -- output ------------------------------------------------------------------------------

    def _on_output(self, whose: str, byte: int) -> None:
        at = self._output.get(whose, 0)
        self._output[whose] = at + 1
        if self._waiting and self._waiting[-1][0] == whose:
            self._waiting[-1][2].append(byte)
        else:
            self._waiting.append((whose, at, bytearray((byte,))))
        if byte == 0x0A:
            self._tell_output()

    def _tell_output(self) -> None:
        for whose, at, data in self._waiting:
            self._channel.send(("output", whose, at, bytes(data)))
        self._waiting.clear()

    # -- stops -------------------------------------------------------------------------------

    def prompt(self, stop: Stop) -> Goal:
        """Say that the run has stopped, and do as told until it is to go on."""
        self._tell_output()
        self._channel.send(("stopped", stop))
        return self._serve(stop)

    def _serve(self, stop: Stop) -> Goal:
        assert self._subject is not None and self._watchman is not None
        view = View(self._subject, self._watchman, stop)
        while True:
            (request, *arguments), _ = self._channel.receive()
            match request:
                case "resume":
                    goal, self._records = arguments
                    self._recorded = time.monotonic()
                    return goal  # type: ignore[no-any-return]
                case "call":
                    self._answer(view, *arguments)
                case "fork":
                    self._fork(("forked",))
                case "end":
                    os._exit(0)

    def _answer(self, view: View, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._channel.send(("reply", function(view, *arguments)))
        except HvprotoError as error:
            self._channel.send(("failed", error))
        except Closed:
            raise
        except Exception:
            self._channel.send(("broken", traceback.format_exc()))

    def _fork(self, message: tuple[Any, ...]) -> bool:
        """Make a copy of this process, and hand its channel over; True in the copy."""
        channel, other = Channel.pair()
        sys.stdout.flush()
        if os.fork() == 0:
            self._channel.close()
            other.close()
            self._channel = channel
            self._waiting.clear()
            return True
        channel.close()
        self._channel.send(message, other)
        other.close()
        return False

    def breathe(self, stop: Stop) -> bool:
        """In a run: whether it is to stop. A checkpoint is made when it is time for one."""
        now = time.monotonic()
        if self._records and now - self._recorded >= self._interval:
            self._tell_output()
            if self._fork(("checkpoint", stop)):
                assert self._watchman is not None
                self._watchman.begin(self._serve(stop))
                return False
            self._recorded = time.monotonic()
            self._interval = max(RECORDING_INTERVAL, RUN_PER_COPY * (self._recorded - now))
        if self._channel.is_waiting:
            (request, *_), _ = self._channel.receive()
            return bool(request == "interrupt")
        return False


def start(build: Build) -> tuple[Channel, int]:
    """A new process with a debuggee, which stops before its first instruction; its channel and its process id."""
    channel, other = Channel.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        channel.close()
        Debuggee(other).live(build)
    other.close()
    return channel, process
