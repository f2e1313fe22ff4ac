"""That a run goes on, on a terminal: a line that comes after two seconds and leaves no trace. In a pipe it never comes.

The line is on stderr's terminal. Where that is stdout's as well, it is gone before anything else is written there, and
comes back when nothing has been written for two seconds: never in the middle of a kernel's own line, and not once the
kernel reads keys from that terminal, which is a conversation and no waiting.

A thread of its own draws the line. It only looks: nothing of a run depends on it, nor on the clock that it goes by.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hvproto import events
from hvproto.cli.outputs import bytes_to_stdout
from hvproto.cli.page import make_console
from hvproto.events import Event, EventBus
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.processor.processor import Processor

PATIENCE = 2.0
"""Seconds without a sign of life before the line comes."""
_PERIOD = 0.25


class Progress:
    """A line that says how far something is; `write` and `hide` are for what else goes to the terminal."""

    def __init__(self, console: Console | None, line: Callable[[], str], *, shared: bool) -> None:
        """Without a console nothing is ever shown. ``shared``: stdout is the same terminal, and isn't the console's."""
        self._console = console
        self._line = line
        self._shared = shared
        self._since = time.monotonic()
        self._in_line = False
        self.converses: Callable[[], bool] = lambda: False
        """Whether the kernel reads keys from this terminal."""
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    def write(self, data: bytes) -> None:
        """What a kernel prints: to stdout, at once and as it is."""
        self.hide()
        bytes_to_stdout(data)
        self._in_line = not data.endswith(b"\n") if data else self._in_line

    def hide(self) -> None:
        """Something else is about to be written."""
        if self._console is not None and self._shared:
            with self._lock:
                self._since = time.monotonic()
                self._stop()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the line may be seen."""
        if self._console is None:
            yield
            return
        drawing = threading.Thread(target=self._draw, args=(self._console,), name="progress", daemon=True)
        drawing.start()
        try:
            yield
        finally:
            with self._lock:
                self._over.set()
                self._stop()

    def _draw(self, console: Console) -> None:
        while not self._over.wait(_PERIOD):
            with self._lock:
                if self._over.is_set():
                    return
                if self._live is not None:
                    self._live.refresh()
                elif time.monotonic() - self._since >= PATIENCE and self._may_begin():
                    self._live = Live(
                        get_renderable=self._rendered, console=console, transient=True, auto_refresh=False,
                        redirect_stdout=False, redirect_stderr=False,
                    )  # fmt: skip
                    self._live.start(refresh=True)

    def _may_begin(self) -> bool:
        return not self._shared or not (self._in_line or self.converses())

    def _rendered(self) -> Text:
        return Text(self._line(), style="dim", no_wrap=True, overflow="ellipsis")

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class Numbers:
    """How far a run has come, in words. Relocations are counted if there is a bus, and exits if ``hears_exits``.

    Who listens to exits makes them slower: that is for runs where somebody does anyway.
    """

    def __init__(self, processor: Processor, bus: EventBus | None, *, hears_exits: bool) -> None:
        self._processor = processor
        self._counts = bus is not None
        self._hears_exits = hears_exits
        self.exits = 0
        self.relocations = 0
        if bus is not None:
            bus.subscribe(self.on_event, events.Relocated, *([events.ExceptionTaken] if hears_exits else []))

    def on_event(self, event: Event) -> None:
        if isinstance(event, events.Relocated):
            self.relocations += 1
        else:
            self.exits += 1

    def line(self) -> str:
        now = self._processor.now
        text = f"cycle {now:,} ({1000 * now / CYCLES_PER_SECOND:,.1f} ms)"
        text += f", {self.exits:,} exits" if self._counts and self._hears_exits else ""
        return text + (f", {self.relocations:,} relocations" if self._counts else "")


def progress_of(processor: Processor, bus: EventBus | None = None, page: Console | None = None) -> Progress:
    """Of a run: virtual time, with a bus also relocations, and exits if it is told on a ``page``."""
    console = _terminal()
    if console is None:
        return Progress(None, str, shared=False)
    told_there = page is not None and page.is_terminal
    shared = not told_there and sys.stdout.isatty()
    numbers = Numbers(processor, bus, hears_exits=page is not None)

    def line() -> str:
        return numbers.line() + "; Ctrl-C ends it"

    return Progress(page if told_there else console, line, shared=shared)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """The same for something that can't say how far it is."""
    began = time.monotonic()
    with Progress(_terminal(), lambda: f"{text}, {time.monotonic() - began:.0f} s", shared=False).running():
        yield


def _terminal() -> Console | None:
    """Stderr, if a person sees it and it can take a line back."""
    if not sys.stderr.isatty():
        return None
    console = make_console(stderr=True)
    return None if console.is_dumb_terminal else console
