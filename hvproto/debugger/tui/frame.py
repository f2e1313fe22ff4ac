"""A frame: what all panes show of a run at a stop, collected at once in its process."""

from __future__ import annotations

from dataclasses import dataclass, field

from hvproto.debugger.debuggee import View
from hvproto.debugger.goal import Stop
from hvproto.debugger.inspect import address_space, history, memory, settings
from hvproto.debugger.inspect.address_space import AddressMap, WalkColumn
from hvproto.debugger.inspect.history import EventRow
from hvproto.debugger.inspect.memory import CodeLine
from hvproto.debugger.inspect.registers import RegisterFile, register_file
from hvproto.debugger.inspect.settings import SettingRow, WorldRow
from hvproto.debugger.position import Position
from hvproto.errors import BadInput, World

INSTRUCTIONS = 60
"""Of the disassembly: what the highest terminal shows, and some to scroll to."""


@dataclass(slots=True)
class Request:
    """What depends on the panes and on what they have been shown before."""

    code_from: int | None = None
    """Where the disassembly began last, and in whose code: it stays there as long as the run stays in it."""
    code_of: World | None = None
    walk: str = ""
    """The expression whose page walk is wanted; without one, that of the next instruction."""
    known_events: int = 0
    """So many of the earliest are known."""


@dataclass(frozen=True, slots=True)
class PageWalk:
    """Of an address, as it was asked for; or why there is none."""

    asked: str
    address: int = 0
    columns: list[WalkColumn] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything about one stop."""

    stop: Stop
    code_world: World
    """Whose code the next instruction is of; a stop in an event is the hypervisor's."""
    worlds: list[WorldRow]
    code: list[CodeLine]
    registers: dict[World, RegisterFile]
    """Of the worlds that have some."""
    settings: list[SettingRow]
    has_host: bool
    """False for a bare machine."""
    space: AddressMap
    walk: PageWalk
    events: list[tuple[Position, EventRow]]
    """Those that weren't known."""


def collect(view: View, request: Request) -> Frame:
    """To be called in the run's process."""
    subject = view.subject
    files = {world: register_file(view, world) for world in World}
    return Frame(
        view.stop,
        subject.world,
        settings.world_rows(view),
        _code(view, request),
        {world: found for world, found in files.items() if found is not None},
        settings.setting_rows(view),
        subject.session is not None,
        address_space.mapped(view),
        _walk(view, request.walk),
        history.events_from(view, request.known_events),
    )


def _code(view: View, request: Request) -> list[CodeLine]:
    here = view.subject.processor.code_address
    if request.code_from is not None and request.code_of is view.subject.world:
        lines = memory.code_lines(view, request.code_from, INSTRUCTIONS)
        if any(line.address == here for line in lines[: INSTRUCTIONS // 2]):
            return lines
    return memory.code_lines(view, here, INSTRUCTIONS)


def _walk(view: View, asked: str) -> PageWalk:
    try:
        return PageWalk(asked, *address_space.walk_columns(view, asked or f"{view.stop.address:#x}"))
    except BadInput as error:
        return PageWalk(asked, error=str(error))
