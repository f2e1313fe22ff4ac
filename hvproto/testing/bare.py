"""A bare machine for tests: the control experiment, which hears what its kernel reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvproto.errors import World
from hvproto.events import Event
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from hvproto.testing.reports import Reports, without_reports

LIMIT = 500_000_000
"""Cycles that a run may take if nobody says otherwise: a second of virtual time, and some seconds of real time."""
RAM = 16 * MIB
"""What the bundled host gives its guest, too."""


class BareMachine(Machine):
    """A machine whose `run` raises GuestAssertion if an ASSERT_EQ of the kernel's has failed.

    ``reports`` are the kernel's, as events with the machine's time in cycles.
    """

    def __init__(
        self, ram_size: int = RAM, disk: bytes | None = None, *, engine: str | None = None, limit: int = LIMIT
    ) -> None:
        self.limit = limit
        """Cycles that a run may take that gives no limit of its own."""
        self.printed = bytearray()
        self.reports: list[Event] = []
        super().__init__(ram_size, disk, engine=engine, on_serial=self._print, on_debug=self._print)
        self._reports = Reports(lambda: self.images.get(World.GUEST), lambda: self.processor.now, self.reports.append)

    def _print(self, byte: int) -> None:
        self.printed.append(byte)
        self._reports.take(byte)

    @property
    def output(self) -> str:
        """What was printed at COM1 and port 0xe9, in order, without reports."""
        return without_reports(bytes(self.printed)).decode("latin-1")

    def run(self, limit: int | None = None, between: Callable[[int], None] = lambda _limit: None) -> int:
        """`Machine.run`, but without a limit it's this machine's own. Raises GuestAssertion."""
        __tracebackhide__ = True
        status = super().run(self.processor.now + self.limit if limit is None else limit, between)
        self._reports.check()
        return status

    def execute(self, image: Image, limit: int | None = None, **options: Any) -> int:
        """Load an image and run it to its end; the exit status. Raises what `load` and `run` raise."""
        self.load(image, **options)
        return self.run(limit)
