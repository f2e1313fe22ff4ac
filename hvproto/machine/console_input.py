"""Input from outside while the machine runs: bytes that a person or a file has, for the serial port or the keyboard.

The machine looks for the next byte only when the guest wants one, at most every millisecond of virtual time, and never
sooner than the line could bring it. So a file gives the same run each time. So does a pipe, as long as whoever writes
to it doesn't let us wait for more than `PATIENCE`: a run doesn't hang on a pipe that nobody writes to. Only a guest
that has halted, and that nothing else would wake, waits for as long as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from hvproto.errors import MachineError
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.keyboard import KeyboardController
from hvproto.machine.uart import Uart16550A

LOOK_INTERVAL = CYCLES_PER_SECOND // 1000
"""Cycles between two looks at a source that had nothing: a select() of some microseconds for each millisecond."""
PATIENCE = 0.25
"""Seconds of real time for which a file or pipe that has given its bytes at once so far may make the guest wait."""
BREATH = 0.2
"""Seconds after which a longer wait looks for Ctrl-C."""


class ByteSource(Protocol):
    """Where the bytes come from."""

    @property
    def interactive(self) -> bool:
        """Whether a person types them: then time passes for a halted guest as it does for the person."""

    def read(self, timeout: float) -> bytes | None:
        """The next byte; None if there is none within so many seconds of real time, b"" if there will never be one."""


class ByteSink(Protocol):
    """What takes the bytes."""

    @property
    def wanted(self) -> bool:
        """Whether the guest looks for input, and a byte could come in now."""

    @property
    def wakes(self) -> bool:
        """Whether a byte would interrupt a halted guest."""

    @property
    def cycles(self) -> int:
        """Virtual time between two bytes, at least."""

    def take(self, data: bytes) -> None:
        """A byte comes in."""


class SerialSink:
    """COM1's receiver. The guest looks for input if it has enabled its interrupt, or if it polls for a byte."""

    def __init__(self, uart: Uart16550A) -> None:
        self._uart = uart

    @property
    def wanted(self) -> bool:
        return self._uart.wanted

    @property
    def wakes(self) -> bool:
        return self._uart.receive_interrupt

    @property
    def cycles(self) -> int:
        return self._uart.character_cycles

    def take(self, data: bytes) -> None:
        self._uart.receive(data)


class KeyboardSink:
    """The keyboard: a character is typed once the guest has taken all keys before. What no key gives is dropped."""

    wakes = True
    cycles = LOOK_INTERVAL

    def __init__(self, keyboard: KeyboardController) -> None:
        self._keyboard = keyboard

    @property
    def wanted(self) -> bool:
        return not self._keyboard.keyboard.waiting_keys

    def take(self, data: bytes) -> None:
        try:
            self._keyboard.type(data.decode("latin-1"))
        except MachineError:
            pass  # an arrow key's escape sequence, say


class ConsoleInput:
    """Brings the bytes of ``source`` to ``sink``, in virtual time that ``now`` tells; ``check`` may raise Ctrl-C."""

    def __init__(self, source: ByteSource, sink: ByteSink, now: Callable[[], int], check: Callable[[], None]) -> None:
        self._source = source
        self._sink = sink
        self._now = now
        self._check = check
        self._next_look = 0
        self._begun = False
        self._ended = False
        self._is_prompt = not source.interactive

    @property
    def _wanted(self) -> bool:
        return not self._ended and self._sink.wanted

    def deadline(self, end: int) -> int:
        """When the run must be interrupted for a look, if before ``end``."""
        return min(end, self._next_look) if self._wanted else end

    def look(self) -> None:
        """Between two runs of the processor: bring the next byte, if it is wanted and time."""
        now = self._now()
        if not self._wanted:
            return
        if not self._begun:
            # Not at once: what a driver finds as it sets up its port, it throws away.
            self._begun = True
            self._next_look = now + LOOK_INTERVAL
        elif now >= self._next_look:
            self._read(now, PATIENCE if self._is_prompt else 0)

    def wait(self, until: int | None) -> int | None:
        """The guest has halted, and will be looked at again at ``until``, or never: wait for a byte meanwhile.

        The cycle at which one has come in, None if none has.
        """
        if not self._wanted or not self._sink.wakes:
            return None
        now = self._now()
        when = max(now, self._next_look)
        if until is None:
            return when if self._read(when, None) else None
        if self._source.interactive:
            begun = time.monotonic()
            came = self._read(when, max(until - now, 0) / CYCLES_PER_SECOND)
            passed = int((time.monotonic() - begun) * CYCLES_PER_SECOND)
            return min(now + passed, until) if came else None
        if when >= until:
            return None
        return when if self._read(when, PATIENCE if self._is_prompt else 0) else None

    def _read(self, when: int, patience: float | None) -> bool:
        """Take a byte as of cycle ``when``, waiting so many seconds for it, or for ever; whether there was one."""
        data = self._patient_read(patience)
        self._next_look = when + LOOK_INTERVAL
        if data is None:
            self._is_prompt = False
            return False
        if not data:
            self._ended = True
            return False
        self._is_prompt = not self._source.interactive
        self._next_look = when + self._sink.cycles
        self._sink.take(data)
        return True

    def _patient_read(self, patience: float | None) -> bytes | None:
        end = None if patience is None else time.monotonic() + patience
        while True:
            left = BREATH if end is None else end - time.monotonic()
            data = self._source.read(max(0, min(BREATH, left)))
            self._check()
            if data is not None or (end is not None and left <= BREATH):
                return data
