"""`hvproto run --compare`: the patent's latency claim as a table, measured on one guest under each plan."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvproto.cli.progress import waiting
from hvproto.hypervisor.compare import EVENTS, Leg, Way, compare

COLUMNS = ("event", "plan", "executed", "ring changes", "CR3 loads", "decided", "coupled")
NOTE = (
    "There + back: instructions executed between the program's and the first one of the guest's own handler, and from "
    "the handler's IRET to the program's next one; how often ring and page table changed, how often the hypervisor "
    "decided, and how often the host was decoupled or recoupled on the way."
)


def print_comparison(*, as_json: bool) -> None:
    """Measure, and print: a table, or one JSON object for each plan and event."""
    with waiting("counting instructions under three plans"):
        ways = compare()
    if as_json:
        for way in ways:
            print(
                json.dumps({"plan": way.plan, "event": way.event, "there": asdict(way.there), "back": asdict(way.back)})
            )
        return
    console = Console(highlight=False)
    console.print(_table(ways))
    console.print(Text(NOTE))


def _table(ways: list[Way]) -> Table:
    table = Table(title="From an event to the guest's handler, and back", box=box.SIMPLE, title_justify="left",
                  title_style="bold")  # fmt: skip
    for number, column in enumerate(COLUMNS):
        table.add_column(
            column,
            min_width=9 if number == 0 else None,
            justify="left" if number < 2 else "right",
            no_wrap=number == 1,
            overflow="fold",
        )
    for event in EVENTS.values():
        for way in ways:
            if way.event == event:
                table.add_row(event if way is _first(ways, event) else "", way.plan, *_numbers(way.there, way.back))
        table.add_section()
    return table


def _first(ways: list[Way], event: str) -> Way:
    return next(way for way in ways if way.event == event)


def _numbers(there: Leg, back: Leg) -> list[str]:
    names = ("instructions", "ring_changes", "table_loads", "decisions", "couplings")
    return [f"{getattr(there, name)}+{getattr(back, name)}" for name in names]
