"""Writes a run as a Chrome trace (JSON array), which the Perfetto UI and chrome://tracing open.

Format: "Trace Event Format", Google, 2016. Written as it happens: nothing is kept, and a file that was broken off is
still readable, since the array's end may be missing. A microsecond is one of virtual time at the machine's nominal
rate; the cycle itself is in each event's arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hvproto import events
from hvproto.events import Event, field_names
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.report.columns import as_json
from hvproto.report.heading import Heading
from hvproto.report.lanes import FIRST_GUEST, HOST, Lanes

_PROCESS = 1
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def microseconds(cycles: int) -> str:
    """A cycle as the format's time, to the nanosecond.

    >>> microseconds(477_272_800)
    '1000000.000'
    """
    return _as_microseconds(_nanoseconds(cycles))


def _nanoseconds(cycles: int) -> int:
    return cycles * 1_000_000_000 // CYCLES_PER_SECOND


def _as_microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


class Trace:
    """A subscriber of events; ``write`` gets the text, piece by piece. `end` completes the file."""

    def __init__(self, heading: Heading, write: Callable[[str], None]) -> None:
        self._write = write
        self._lanes = Lanes()
        self._holder, self._since, self._now = HOST, 0, 0
        self._names = heading.lanes
        self._separator = "[\n"
        self._put("M", "process_name", None, 0, args={"name": f"the processor, plan {heading.plan}"})
        for number, name in enumerate(self._names):
            self._put("M", "thread_name", None, number, args={"name": name})
            self._put("M", "thread_sort_index", None, number, args={"sort_index": number})

    def on_event(self, event: Event) -> None:
        earliest, self._now = self._now, max(self._now, event.at)
        lane, switches = self._lanes.follow(event)
        for switch in switches:
            self._switch(switch.lane, min(max(switch.at, earliest, self._since), self._now))
        values: dict[str, Any] = {"cycle": event.at}
        if event.step is not None:
            values["step"] = event.step
        for name in field_names(type(event))[1:]:
            value = getattr(event, name)
            values[name] = value if type(value) is str else as_json(value)
        if isinstance(event, events.HostFunction):
            phase = "b" if event.phase == "begin" else "e"
            name = f"{self._guest(event.guest)}: {event.name}"
            self._put(phase, name, self._now, HOST, f',"cat":"host function","id":{event.guest}', values)
        elif isinstance(event, events.GuestMappings):
            self._put("C", "pages that the guest maps", self._now, lane, args={
                "pages": sum(pages for _, pages in event.runs)
            })  # fmt: skip
            self._region(event.region, lane)
        else:
            self._put("i", event.kind, self._now, lane, ',"s":"t"', values)
        if isinstance(event, events.Relocated):
            self._region(event.new, lane)

    def end(self) -> None:
        """Nothing follows: who has the processor has it until now."""
        self._switch(-1, self._now)
        self._write("\n]\n")

    def _region(self, place: int, lane: int) -> None:
        self._put("C", "the region's first page", self._now, lane, args={"GVA": place})

    def _guest(self, number: int) -> str:
        return self._names[FIRST_GUEST + number]

    def _switch(self, lane: int, at: int) -> None:
        if at > self._since:
            length = _nanoseconds(at) - _nanoseconds(self._since)  # so that it ends where the next one begins
            more = f',"dur":{_as_microseconds(length)}'
            self._put("X", self._names[self._holder], self._since, self._holder, more, {"cycles": at - self._since})
        self._holder, self._since = lane, at

    def _put(
        self, phase: str, name: str, at: int | None, lane: int, more: str = "", args: dict[str, Any] | None = None
    ) -> None:
        time = "" if at is None else f',"ts":{microseconds(at)}'
        text = f'{{"ph":"{phase}","name":{_ENCODE(name)},"pid":{_PROCESS},"tid":{lane}{time}{more}'
        arguments = "" if args is None else f',"args":{_ENCODE(args)}'
        self._write(f"{self._separator}{text}{arguments}}}")
        self._separator = ",\n"
