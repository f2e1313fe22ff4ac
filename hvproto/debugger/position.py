"""A moment of a run: what time travel goes to.

A run repeats itself exactly, so a moment needs no more than a name. Three numbers order all moments: how many events
have been told, the virtual time at which the present basic block began, and how many of its instructions are done.
Inside an event, before any code goes on, the last is `IN_EVENT`.
"""

from __future__ import annotations

from typing import NamedTuple

from hvproto.errors import BadInput

IN_EVENT, BETWEEN = -2, -1
"""Indices: inside an event; and between two blocks, where nobody stops but checkpoints are made."""


class Position(NamedTuple):
    """``events`` told so far, ``at`` in cycles of virtual time, ``index`` of the instruction in its basic block.

    >>> Position(3, 1200, 2)
    3:1200:2
    >>> Position(3, 1200, 2) > Position(3, 1200, IN_EVENT)
    True
    """

    events: int
    at: int
    index: int  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.events}:{self.at}:{self.index}"

    @property
    def in_event(self) -> bool:
        """Whether it is the moment of an event, in which the hypervisor stands in the middle of what it does."""
        return self.index == IN_EVENT


START = Position(0, 0, 0)


def parse_position(text: str) -> Position:
    """What `repr` gives. Raises BadInput.

    >>> parse_position("3:1200:2")
    3:1200:2
    """
    try:
        events, at, index = (int(part.replace(",", "").replace("_", "")) for part in text.split(":"))
    except ValueError:
        raise BadInput(f"{text!r} is no position: write EVENTS:CYCLES:INDEX, as a stop shows it") from None
    return Position(events, at, index)
