"""The events of a run, recorded, with ways to ask for some of them."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

from hvproto.events import Event

Kind = TypeVar("Kind", bound=Event)


class Recorded(list[Event]):
    """All events so far, in order.

    >>> from hvproto.events import NoConflict, Relocated
    >>> events = Recorded([NoConflict(5, 0x2000), Relocated(7, 0x1000, 0x9000, 6), Relocated(9, 0x9000, 0x1000, 6)])
    >>> [event.new for event in events.of(Relocated)], events.of(Relocated, new=0x9000)[0].at
    ([36864, 4096], 7)
    >>> events.summary()
    'NoConflict 1, Relocated 2'
    """

    def of(self, *kinds: type[Kind], **values: Any) -> list[Kind]:
        """Those of these classes whose fields have these values."""
        return [
            event
            for event in self
            if isinstance(event, kinds) and all(getattr(event, name, None) == value for name, value in values.items())
        ]

    def summary(self) -> str:
        """How many of each kind, for a message."""
        counted = Counter(event.kind for event in self)
        return ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items())) or "no events"
