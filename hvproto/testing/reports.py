"""What a guest says to its test by the macros of `hvproto/assert.asm`: lines at the debug console, as events.

``hvproto: E at left right`` (ASSERT_EQ failed), ``hvproto: S at number`` (SYNC), ``hvproto: D at`` (DONE); all numbers
are hexadecimal, ``at`` is the linear address of the macro's first instruction, which leads to its source line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hvproto.events import Event
from hvproto.images.image import Image

_REPORT = re.compile(rb"hvproto: ([ESD])((?: [0-9a-f]{8}(?:[0-9a-f]{8})?)+)\n")


@dataclass(frozen=True, slots=True)
class GuestReport(Event):
    """Base: where in the source the macro stands; line 0 if the image doesn't say."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class GuestFailed(GuestReport):
    """ASSERT_EQ: the values differ."""

    left: int
    right: int


@dataclass(frozen=True, slots=True)
class GuestSync(GuestReport):
    """SYNC: the guest has come to this point."""

    number: int


@dataclass(frozen=True, slots=True)
class GuestDone(GuestReport):
    """DONE: all is well."""


class GuestAssertion(AssertionError):
    """An ASSERT_EQ of the guest's has failed; ``report`` has file, line and values."""

    def __init__(self, report: GuestFailed) -> None:
        text = source_line(report.file, report.line)
        wide = 16 if max(report.left, report.right) >> 32 else 8
        super().__init__(
            f"{report.file}:{report.line}: {text or 'ASSERT_EQ'}\n"
            f"    left:  {report.left:#0{wide + 2}x}\n    right: {report.right:#0{wide + 2}x}"
        )
        self.report = report


class Reports:
    """Takes a guest's output byte by byte, and makes events of the reports in it."""

    def __init__(
        self, image: Callable[[], Image | None], now: Callable[[], int], tell: Callable[[Event], None]
    ) -> None:
        self._image, self._now, self._tell = image, now, tell
        self._output = bytearray()
        self.failed: GuestFailed | None = None
        """The first assertion that failed."""

    def take(self, byte: int) -> None:
        """A byte of the guest's output."""
        self._output.append(byte)
        if byte != 10:
            return
        found = _REPORT.search(bytes(self._output))
        self._output.clear()
        if found is not None:
            self._tell(self._event(found[1], [int(number, 16) for number in found[2].split()]))

    def _event(self, word: bytes, numbers: list[int]) -> GuestReport:
        image, now = self._image(), self._now()
        place = image.line_at(numbers[0]) if image is not None else None
        file, line = (place.file, place.line) if place else (image.path if image else "?", 0)
        if word == b"E":
            failed = GuestFailed(now, file, line, *numbers[1:3])
            self.failed = self.failed or failed
            return failed
        return GuestSync(now, file, line, numbers[1]) if word == b"S" else GuestDone(now, file, line)

    def check(self) -> None:
        """Raise GuestAssertion if an assertion has failed."""
        __tracebackhide__ = True
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise GuestAssertion(failed)


def without_reports(output: bytes) -> bytes:
    """What a guest has printed besides its reports.

    >>> without_reports(b"one\\nhvproto: S 00100005 00000003\\ntwo\\n")
    b'one\\ntwo\\n'
    """
    return _REPORT.sub(b"", output)


def source_line(file: str, number: int) -> str:
    """A line of a source file, "" if there is none."""
    try:
        with open(file, encoding="utf-8") as source:
            return next((text.strip() for at, text in enumerate(source, 1) if at == number), "")
    except (OSError, UnicodeDecodeError):
        return ""
