"""Who has the processor, from events; and that a collector that was interrupted has whole events only."""

from __future__ import annotations

import numpy as np
import pytest

from hvproto import events
from hvproto.report.collector import Collector
from hvproto.report.heading import Heading
from tests.report.million import long_run

HEADING = Heading("mirrored", "host", ["guest"])


def test_the_switches_add_up_to_the_run() -> None:
    collector = Collector(HEADING)
    held = {0: 0, 1: 0, 2: 0}
    entered = left = 0
    for event in long_run(5_000):
        collector.on_event(event)
        if isinstance(event, events.Decoupled):
            entered = event.at
            held[0] += event.at - left
        elif isinstance(event, events.Recoupled):
            left = event.at
            held[2] += event.at - entered
        elif isinstance(event, events.ExceptionTaken):
            held[1] += event.cycles
            held[2] -= event.cycles
    columns = collector.columns()
    since = np.append(np.cumsum(columns["switchAt"]), collector.now)
    found = {lane: int(np.diff(since)[columns["switchLane"] == lane].sum()) for lane in held}
    tail = collector.now - max(entered, left)
    held[2 if entered > left else 0] += tail
    assert found == held
    assert (np.diff(columns["switchEvent"].astype(int)) >= 0).all()


def test_an_event_that_was_broken_off_leaves_nothing() -> None:
    class Stop(str):
        """A Ctrl-C that comes while a column takes this value."""

        armed = True

        def __hash__(self) -> int:
            if Stop.armed:
                raise KeyboardInterrupt
            return super().__hash__()

    collector = Collector(HEADING)
    collector.on_event(events.SettingSaved(1, "CR0", 5, "1", 64))
    with pytest.raises(KeyboardInterrupt):
        collector.on_event(events.SettingSaved(2, "CR3", 6, Stop("2"), 88))
    Stop.armed = False
    assert len(collector) == 1 and collector.rows() == [1]
    collector.on_event(events.SettingSaved(3, "CR4", 7, "3", 112))
    (table,) = collector.tables
    rows = [
        tuple(column.values[code] for column, code in zip(table.columns, codes, strict=True))
        for codes in zip(*(column.codes(2).tolist() for column in table.columns), strict=True)
    ]
    assert rows == [("CR0", 5, "1", 64), ("CR4", 7, "3", 112)]
    assert np.cumsum(collector.columns()["at"]).tolist() == [1, 3]


def test_times_never_go_back() -> None:
    collector = Collector(HEADING)
    for at in (100, 50, 120):
        collector.on_event(events.HostFunction(at, "write", "begin", "", 0))
    assert np.cumsum(collector.columns()["at"]).tolist() == [100, 100, 120]
