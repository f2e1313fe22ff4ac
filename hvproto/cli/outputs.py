"""Where output goes: a kernel's bytes to stdout, events to a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hvproto.errors import BadInput
from hvproto.events import Event, Subscriber


def to_stdout(byte: int) -> None:
    """Write one byte of a kernel's output at once, as it is."""
    bytes_to_stdout(bytes((byte,)))


def bytes_to_stdout(data: bytes) -> None:
    """Write a kernel's output at once, as it is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class EventsError(BadInput):
    """The events file can't be written, or no longer."""


@contextmanager
def events_file(name: str, inputs: list[Path]) -> Iterator[Subscriber]:
    """A subscriber that writes each event as a line of JSON; the file is opened, and emptied, at once.

    ``inputs`` are files that must not be overwritten. Raises EventsError.
    """
    path = Path(name)
    if any(_is_same(path, other) for other in inputs):
        raise EventsError(f"{name}: the events would overwrite an input of this run; give --events another file")
    try:
        file = path.open("w", encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:
        raise _error(name, error) from None

    def write(event: Event) -> None:
        _write(file, name, event.to_json() + "\n")

    try:
        yield write
        _write(file, name, "", flush=True)
    finally:
        _close(file)


def _write(file: TextIO, name: str, text: str, *, flush: bool = False) -> None:
    try:
        file.write(text)
        if flush:
            file.flush()
    except OSError as error:
        raise _error(name, error) from None


def _close(file: TextIO) -> None:
    try:
        file.close()
    except OSError:
        pass  # the flush before has said so, or another error is on its way


def _error(name: str, error: OSError | ValueError) -> EventsError:
    reason = getattr(error, "strerror", None) or str(error)
    return EventsError(f"{name}: the events can't be written: {reason}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
