"""Events as columns: a table for each kind, in which every value is the number of one that has been there before.

A million events have few different settings, addresses and reasons. What stays small is what a browser can hold, too.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hvproto.events import Event, field_names

LARGEST_NUMBER = 2**53 - 1
"""That JavaScript holds exactly."""


class Column:
    """One field of one kind of events."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._codes: dict[object, int] = {}
        self._rows = array("I")

    def put(self, row: int, value: object) -> None:
        """Append; ``row`` is how many there are. More of them are left from an event that was broken off."""
        if len(self._rows) > row:
            del self._rows[row:]
        self._rows.append(self._codes.setdefault(value, len(self._codes)))

    @property
    def values(self) -> list[Any]:
        """The different values, as JSON; a number that JavaScript can't hold as text in hexadecimal."""
        return [as_json(value) for value in self._codes]

    def codes(self, rows: int) -> npt.NDArray[Any]:
        """For each row the number of its value, as narrow as it can be."""
        few = len(self._codes)
        width = np.uint8 if few <= 1 << 8 else np.uint16 if few <= 1 << 16 else np.uint32
        return np.frombuffer(self._rows, np.uint32)[:rows].astype(width)


class Table:
    """All events of one kind."""

    def __init__(self, kind: type[Event]) -> None:
        self.name = kind.__name__
        self.step = kind.step
        self.columns = [Column(name) for name in field_names(kind)[1:]]
        self.rows = 0

    def put(self, event: Event) -> None:
        for column in self.columns:
            column.put(self.rows, getattr(event, column.name))
        self.rows += 1


def as_json(value: object) -> Any:
    """A value of an event's field as JavaScript can read it.

    >>> as_json((1, 1 << 60)), as_json(None), as_json("IDTR")
    ([1, '0x1000000000000000'], None, 'IDTR')
    """
    if isinstance(value, tuple):
        return [as_json(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_NUMBER:
        return hex(value)
    return value


def packed(columns: Sequence[npt.NDArray[Any]]) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each column when they lie one behind the other, each at a multiple of 8."""
    offset = 0
    for column in columns:
        data = column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()
        data += bytes(-len(data) % 8)
        yield offset, data
        offset += len(data)
