"""Several guests told apart: a name for each, and their output in whole lines with the name before them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hvproto.errors import HvprotoError
from hvproto.images.image import Image

LONGEST_LINE = 1 << 16
"""After so many bytes without a newline a line is written as far as it has come."""


def names_of(guests: Sequence[Image]) -> list[str]:
    """What the guests are called, each differently: by their files, numbered from the second of a kind on."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for image in guests:
        stem = Path(image.path).stem
        seen[stem] += 1
        name = stem if seen[stem] == 1 else f"{stem} {seen[stem]}"
        while name in names:  # a file may be called "guest 2"
            seen[stem] += 1
            name = f"{stem} {seen[stem]}"
        names.append(name)
    return names


def say_failures(names: Sequence[str], failures: Mapping[int, HvprotoError]) -> None:
    """A paragraph on stderr for each guest that has come to grief, in order."""
    sys.stdout.flush()
    for number, failure in failures.items():
        print(f"hvproto: [{names[number]}] {failure}", file=sys.stderr, flush=True)


class GuestLines:
    """Gathers what guests print, byte for byte, and writes it line by line with their names."""

    def __init__(self, names: Sequence[str], write: Callable[[bytes], None]) -> None:
        self._prefixes = [f"[{name}] ".encode() for name in names]
        self._lines = [bytearray() for _ in names]
        self._write = write

    def take(self, number: int, data: bytes) -> None:
        """What guest ``number`` has printed."""
        line = self._lines[number]
        for byte in data:
            line.append(byte)
            if byte == 0x0A or len(line) >= LONGEST_LINE:
                self._end_line(number)

    def finish(self) -> None:
        """There will be no more: lines that aren't complete are written as they are."""
        for number, line in enumerate(self._lines):
            if line:
                self._end_line(number)

    def _end_line(self, number: int) -> None:
        line = bytes(self._lines[number])
        self._lines[number].clear()
        self._write(self._prefixes[number] + line + (b"" if line.endswith(b"\n") else b"\n"))
