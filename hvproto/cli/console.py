"""Standard input for a machine: a file or a pipe as it is, or a terminal whose keys go to the guest one by one.

A terminal is left as it is until the guest looks for input. From then on, keys aren't echoed and don't wait for Enter;
Ctrl-C still ends us, and Ctrl-Z stops us. However we end, the terminal is as before.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hvproto.hypervisor.hypervisor import Hypervisor
from hvproto.machine.console_input import KeyboardSink, SerialSink
from hvproto.machine.machine import Machine

_INPUT_FLAGS, _LOCAL_FLAGS, _CHARACTERS = 0, 3, 6  # in what tcgetattr() gives
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class StandardInput:
    """The bytes of a file descriptor, one by one."""

    interactive = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, timeout: float) -> bytes | None:
        """The next byte, None after so many seconds without one, b"" at the end."""
        try:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                return None
            return os.read(self._descriptor, 1)
        except OSError:
            return b""  # a terminal that has gone, or a directory: nothing can be read any more


class Terminal(StandardInput):
    """A terminal, taken over at the first read and given back by `restore`."""

    interactive = True

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._before: list[Any] | None = None

    @property
    def taken(self) -> bool:
        return self._before is not None

    def read(self, timeout: float) -> bytes | None:
        if not self._is_ours():  # we run in the background: asking for a key would stop us
            select.select([], [], [], timeout)
            return None
        self._take_over()
        return super().read(timeout)

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True  # not the terminal that controls us

    def _take_over(self) -> None:
        if self._before is not None:
            return
        try:
            before = termios.tcgetattr(self._descriptor)
            ours = termios.tcgetattr(self._descriptor)
            # Enter is a carriage return, as a serial terminal sends it; Ctrl-S and Ctrl-Q are the guest's.
            ours[_INPUT_FLAGS] &= ~(termios.ICRNL | termios.IXON)
            ours[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
            ours[_CHARACTERS][termios.VMIN], ours[_CHARACTERS][termios.VTIME] = 1, 0
            self._before = before
            termios.tcsetattr(self._descriptor, termios.TCSANOW, ours)
        except termios.error:
            pass  # it has gone: the read will tell

    def restore(self) -> None:
        """Make the terminal what it was. It is taken over again by the next read."""
        before, self._before = self._before, None
        if before is not None:
            try:
                termios.tcsetattr(self._descriptor, termios.TCSANOW, before)
            except termios.error:
                pass


@contextmanager
def standard_input(
    machine: Machine, hypervisor: Hypervisor | None = None, *, keyboard: bool = False
) -> Iterator[Callable[[], bool]]:
    """Give our standard input, if there is one, to the machine's serial port, or to its keyboard.

    If it has a single guest, also to that one's serial port: each byte goes to who looks for it first.

    Gives a function that says whether a terminal has been taken over for that by now.
    """
    source = _source()
    if source is None:
        yield lambda: False
        return
    machine.connect(source, KeyboardSink(machine.platform.keyboard) if keyboard else SerialSink(machine.board.uart))
    if hypervisor is not None and len(hypervisor.images) == 1:
        hypervisor.on_guest = lambda guest: guest.connect(source)
    if not isinstance(source, Terminal):
        yield lambda: False
        return
    with _restoring(source):
        yield lambda: source.taken


@contextmanager
def _restoring(terminal: Terminal) -> Iterator[None]:
    """Give the terminal back at the end, also at one by a signal, and while we are stopped."""

    def end(number: int, _frame: FrameType | None) -> None:
        terminal.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def stop(_number: int, _frame: FrameType | None) -> None:
        terminal.restore()
        os.kill(os.getpid(), signal.SIGSTOP)

    before = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGTSTP)}
    mine = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, stop if number == signal.SIGTSTP else end)
    try:
        yield
    finally:
        terminal.restore()
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _source() -> StandardInput | None:
    """None if standard input is closed, or isn't a file of the system's."""
    try:
        descriptor = sys.stdin.fileno()
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return None
    return Terminal(descriptor) if os.isatty(descriptor) else StandardInput(descriptor)
