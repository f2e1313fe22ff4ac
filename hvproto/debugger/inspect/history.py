"""The events so far; snapshots, and what differs between two."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

from hvproto.addresses import PAGE_SIZE
from hvproto.debugger.debuggee import View
from hvproto.debugger.inspect.registers import registers_of
from hvproto.debugger.inspect.table import columns
from hvproto.debugger.position import Position
from hvproto.errors import BadInput, World
from hvproto.processor.settings import Setting, describe


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event for a person: its step of figures 2 and 4, if it has one, and its fields as text."""

    kind: str
    step: int | None
    at: int
    told: str

    def __str__(self) -> str:
        return f"{f'step {self.step} ' if self.step is not None else ''}{self.kind} at cycle {self.at:,}: {self.told}"


def event_row(text: str) -> EventRow:
    """An event's JSON, taken apart."""
    values = json.loads(text)
    kind, step, at = values.pop("event"), values.pop("step"), values.pop("at")
    told = ", ".join(f"{key} {_value(key, value)}" for key, value in values.items() if value not in (None, ""))
    return EventRow(kind, step, at, told)


def event_line(text: str) -> str:
    """An event's JSON as a line for a person."""
    return str(event_row(text))


def events_from(view: View, first: int) -> list[tuple[Position, EventRow]]:
    """The events so far, without so many of the earliest, and the moment of each."""
    return [(position, event_row(event.to_json())) for position, event in view.watchman.history[first:]]


_ADDRESSES = ("place", "eip", "host_eip", "cr2", "gpa", "address", "region", "old", "new", "value")


def _value(key: str, value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:#x}" if isinstance(value, int) and key in _ADDRESSES else str(value)


def event_list(view: View, count: str = "20", kind: str = "") -> str:
    """The last events, or all; of one kind, if it is named."""
    history = [(position, event) for position, event in view.watchman.history if not kind or event.kind == kind]
    if count != "all" and not count.isdecimal():
        raise BadInput("events [COUNT|all] [KIND]")
    shown = history if count == "all" else history[max(0, len(history) - int(count)) :]
    lines = [f"{position!r}  {event_line(event.to_json())}" for position, event in shown]
    if len(shown) < len(history):
        lines.insert(0, f"({len(history) - len(shown):,} before these: events all)")
    return "\n".join(lines) or "No events so far."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Registers, settings and a checksum of each page of RAM at a moment."""

    position: Position
    registers: dict[str, dict[str, int]]
    settings: dict[str, str]
    pages: tuple[int, ...]


def snapshot(view: View) -> Snapshot:
    """What `differences` compares."""
    subject = view.subject
    ram = subject.machine.ram.view
    registers = {str(world): registers_of(subject, world) for world in (World.HOST, World.GUEST)}
    return Snapshot(
        view.stop.position,
        {world: values for world, values in registers.items() if values is not None},
        {setting.name: describe(subject.processor.read_setting(setting)) for setting in Setting},
        tuple(zlib.crc32(ram[at : at + PAGE_SIZE]) for at in range(0, len(ram), PAGE_SIZE)),
    )


def differences(one: Snapshot, other: Snapshot) -> str:
    """Which registers, settings and pages of RAM differ."""
    rows = []
    for world in sorted(one.registers.keys() | other.registers.keys()):
        before, after = one.registers.get(world, {}), other.registers.get(world, {})
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                rows.append((world, name, _hex(before.get(name)), _hex(after.get(name))))
    for name, value in one.settings.items():
        if value != other.settings[name]:
            rows.append(("loaded", name, value, other.settings[name]))
    pages = [index for index, (a, b) in enumerate(zip(one.pages, other.pages, strict=True)) if a != b]
    lines = [columns(rows, head=("whose", "", repr(one.position), repr(other.position)))] if rows else []
    lines.append(f"{len(pages)} pages of RAM differ" + (":" if pages else ""))
    lines += [
        f"  HPA {first * PAGE_SIZE:#010x} to {(last + 1) * PAGE_SIZE - 1:#010x}" for first, last in _ranges(pages)
    ]
    return "\n".join(lines)


def _hex(value: int | None) -> str:
    return "-" if value is None else f"{value:08x}"


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
