"""Where output goes: a kernel's bytes to stdout, other things to files that the user names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TextIO

from hvproto.errors import BadInput


def bytes_to_stdout(data: bytes) -> None:
    """Write a kernel's output at once, as it is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class OutputError(BadInput):
    """A file can't be written, or no longer."""


class Output:
    """A file that the user has named. ``what`` are its contents, in the plural; ``option`` is how it was given.

    Raises OutputError for one that can't be opened, also from `write`.
    """

    def __init__(self, name: str, option: str, what: str) -> None:
        self.name = name
        self.option = option
        self._what = what
        self._file: TextIO | None = None

    def check(self, inputs: list[Path]) -> None:
        """Raises OutputError if this is one of the files that must not be overwritten."""
        if any(_is_same(Path(self.name), other) for other in inputs):
            raise OutputError(
                f"{self.name}: {self._what} would overwrite an input of this run; give {self.option} another file"
            )

    @contextmanager
    def opened(self) -> Iterator[TextIO]:
        """The file, empty. What can't be written at its end is an error, unless another one is on its way."""
        with self.reported():
            self._file = Path(self.name).open("w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed below
        try:
            yield self._file
            with self.reported():
                self._file.flush()
        finally:
            try:
                self._file.close()
            except OSError:
                pass  # the flush before has said so, or another error is on its way

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Inside, whatever the system says of the file becomes an OutputError."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"{self.name}: {self._what} can't be written: {reason}") from None

    def write(self, text: str) -> None:
        assert self._file is not None
        with self.reported():
            self._file.write(text)


def check_outputs(outputs: list[Output], inputs: list[Path]) -> None:
    """Raises OutputError if a file would overwrite an input, or another output."""
    for output in outputs:
        output.check(inputs)
    for one, other in combinations(outputs, 2):
        if Path(one.name).resolve() == Path(other.name).resolve() and not Path(one.name).is_char_device():
            raise OutputError(f"{one.name}: {one.option} and {other.option} need a file each")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
