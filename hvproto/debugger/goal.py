"""What a resumed run is to stop at, and how it says that it has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hvproto.debugger.position import Position
from hvproto.errors import World

END_INDEX = 1 << 30
"""The index of the position at which a run has ended: behind everything."""


class Watched(StrEnum):
    """What a breakpoint waits for."""

    ADDRESS = "address"
    EVENT = "event"
    SETTING = "setting"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """``what`` is an address (as text, for people), an event's or a setting's name."""

    number: int
    kind: Watched
    what: str
    address: int = 0
    """Linear; of a memory watch, its first byte."""
    size: int = 0
    """Bytes of a memory watch."""
    world: World | None = None
    condition: str = ""
    places: tuple[tuple[int, int], ...] = ()
    """Where in the machine's RAM that memory is: host-physical addresses and bytes."""
    access: str = "write"
    """Of a memory watch: write (its value changes), read or access."""

    def __str__(self) -> str:
        text = f"{self.number}: {self.kind} {self.what}"
        if self.kind is Watched.ADDRESS:
            text += f" ({self.address:#x})" if f"{self.address:#x}" != self.what else ""
        if self.kind is Watched.MEMORY:
            text += f" ({self.size} bytes at {self.address:#x}, {self.access})"
        if self.world is not None:
            text += f" in {self.world}"
        return text + (f" if {self.condition}" if self.condition else "")


@dataclass(frozen=True, slots=True)
class Goal:
    """One resumption. Whatever comes first ends it."""

    breakpoints: tuple[Breakpoint, ...] = ()
    steps: int = 0
    """After so many instructions; 0: not for that reason."""
    events: tuple[str, ...] = ()
    """At an event of one of these kinds."""
    any_event: bool = False
    until: Position | None = None
    """At the first moment that isn't before this one."""
    time: int | None = None
    """Before the first instruction at or after this virtual time (cycles)."""
    above: int | None = None
    """Once the stack pointer is above this, in the world that it was in: a return."""
    returns_to: int | None = None
    """Before the instruction at this linear address, with the stack pointer not below ``above``."""
    collects: bool = False
    """Nothing but ``until`` stops; what would have is told then, the last of it."""
    traces: bool = False
    """Go step by step to ``until``, and tell the moment before it."""
    exact: bool = False
    """Watch memory instruction by instruction; else only the block that has changed it is found."""
    skips_interrupts: bool = False
    """Steps are counted in the code that was interrupted, not in the handlers of external interrupts."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a run stands, and why."""

    position: Position
    kind: str
    """start, step, breakpoint, watch, event, goal, interrupted, checkpoint, passed or end."""
    reason: str
    world: World
    address: int
    """Linear address of the next instruction."""
    now: int
    """Virtual time in cycles."""
    symbol: str = ""
    event: str = ""
    """The event as JSON, if it stands in one."""
    breakpoint: int | None = None
    status: int | None = None
    """The exit status, after the end."""
    previous: Position | None = None
    """What a collecting or tracing run was asked for."""
    passed_at: int = 0
    """Of a stop behind a block that has changed watched memory ("passed"): when that block began, at the latest."""

    @property
    def ended(self) -> bool:
        return self.kind == "end"
