"""A bare machine for tests: the control experiment, which hears what its kernel reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvproto.errors import BadInput, World
from hvproto.events import Event
from hvproto.images.image import Image
from hvproto.machine.machine import Machine
from hvproto.machine.ram import MIB
from hvproto.testing.reports import Reports, without_reports

LIMIT = 250_000_000
"""Instructions that a run may take if nobody says otherwise ..."""
TIME = 500_000_000
"""... and cycles, a second of virtual time: it ends by whichever comes first, also if it does nothing but wait. A limit
that somebody gives is one in instructions alone."""
RAM = 16 * MIB
"""What the bundled host gives its guest, too."""


class BareMachine(Machine):
    """A machine whose `run` raises GuestAssertion if an ASSERT_EQ of the kernel's has failed.

    ``reports`` are the kernel's, as events with the machine's time in cycles.
    """

    def __init__(
        self, ram_size: int = RAM, disk: bytes | None = None, *, engine: str | None = None, limit: int | None = None
    ) -> None:
        self.limit = limit
        """Instructions that a run may take that gives no limit of its own; None: 250,000,000, in a second of virtual
        time."""
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

    def run(
        self,
        limit: int | None = None,
        between: Callable[[int], None] = lambda _limit: None,
        *,
        cycles: int | None = None,
    ) -> int:
        """`Machine.run`, for at most ``limit`` instructions from now, or ``cycles`` of virtual time, or both.

        Without either, this machine's own limit. Raises GuestAssertion, LimitReached and other RunErrors.
        """
        __tracebackhide__ = True
        limit, cycles = allowed(limit, cycles, self.limit)
        end = None if cycles is None else self.processor.now + cycles
        if limit is None:
            status = super().run(end, between)
        else:
            with self.allowing(limit):
                status = super().run(end, between)
        self._reports.check()
        return status

    def run_until(self, text: str, limit: int | None = None) -> None:
        """`Machine.run_until`, for at most ``limit`` instructions."""
        self._run_until(text, lambda look: self.run(limit, look))

    def execute(self, image: Image, limit: int | None = None, **options: Any) -> int:
        """Load an image and run it to its end; the exit status. Raises what `load` and `run` raise."""
        self.load(image, **options)
        return self.run(limit)


def allowed(limit: int | None, cycles: int | None, otherwise: int | None) -> tuple[int | None, int | None]:
    """The instructions and cycles of a run: those that it gives, else what it is allowed otherwise, else `LIMIT`.

    Raises BadInput for a limit that isn't positive.
    """
    if limit is None and cycles is None:
        limit, cycles = (LIMIT, TIME) if otherwise is None else (otherwise, None)
    if limit is not None and limit < 1:
        raise BadInput(f"limit={limit!r}: it takes at least one instruction to do something")
    return limit, cycles
