"""Collects a run for the page: a subscriber of events that keeps them as columns, with who had the processor."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from hvproto.events import Event
from hvproto.report.columns import Table
from hvproto.report.heading import Heading
from hvproto.report.lanes import HOST, Lanes, Switch


class Collector:
    """Keeps every event. May be interrupted anywhere: what was complete by then is what it has.

    Times never go back here: an event that says an earlier one than another before it is put beside that.
    """

    def __init__(self, heading: Heading) -> None:
        self.heading = heading
        self.tables: list[Table] = []
        self._table_of: dict[type[Event], int] = {}
        self._lanes = Lanes()
        self._at = array("Q")
        self._who = array("B")
        self._kind = array("B")
        self._complete = 0
        self._switch_at = array("Q", (0,))
        self._switch_event = array("I", (0,))
        self._switch_lane = array("B", (HOST,))

    def on_event(self, event: Event) -> None:
        number = self._complete
        if len(self._at) > number:  # an event was broken off here
            del self._at[number:], self._who[number:], self._kind[number:]
        last = self._at[-1] if number else 0
        at = max(event.at, last)
        kind = self._table_of.get(type(event))
        if kind is None:
            kind = self._table_of[type(event)] = len(self.tables)
            self.tables.append(Table(type(event)))
        self.tables[kind].put(event)
        who, switches = self._lanes.follow(event)
        for switch in switches:
            self._switch(switch, number + switch.after, last, at)
        self._at.append(at)
        self._who.append(who)
        self._kind.append(kind)
        self._complete += 1

    def _switch(self, switch: Switch, number: int, earliest: int, latest: int) -> None:
        at = min(max(switch.at, earliest, self._switch_at[-1]), latest)
        while len(self._switch_at) > 1 and self._switch_at[-1] == at and self._switch_event[-1] == number:
            self._drop()  # it had the processor for no time and for no event
        if self._switch_lane[-1] != switch.lane:
            self._switch_at.append(at)
            self._switch_event.append(number)
            self._switch_lane.append(switch.lane)

    def _drop(self) -> None:
        for column in (self._switch_at, self._switch_event, self._switch_lane):
            column.pop()

    def __len__(self) -> int:
        return self._complete

    @property
    def now(self) -> int:
        """Virtual time of the last event, in cycles."""
        return self._at[self._complete - 1] if self._complete else 0

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What isn't any kind's own: of each event the time since the last one, its lane and its kind; the switches.

        Times are differences, which are small: they compress well.
        """
        number, switches = self._complete, len(self._switch_lane)
        at, since = (np.frombuffer(column, np.uint64).astype(np.float64) for column in (self._at, self._switch_at))
        return {
            "at": np.diff(at[:number], prepend=0.0),
            "who": np.frombuffer(self._who, np.uint8)[:number],
            "kind": np.frombuffer(self._kind, np.uint8)[:number],
            "switchAt": np.diff(since[:switches], prepend=0.0),
            "switchEvent": np.frombuffer(self._switch_event, np.uint32)[:switches],
            "switchLane": np.frombuffer(self._switch_lane, np.uint8)[:switches],
        }

    def rows(self) -> list[int]:
        """How many events of each kind are complete."""
        kinds = np.frombuffer(self._kind, np.uint8)[: self._complete]
        return [int(count) for count in np.bincount(kinds, minlength=len(self.tables))] if self._complete else []
