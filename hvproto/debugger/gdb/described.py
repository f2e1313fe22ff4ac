"""What GDB believes the registers to be, and how it comes to believe something else without a new connection.

GDB reads a target's description when it connects, and then on one event alone: an exec (GDB manual, appendix E,
"Stop Reply Packets", exec; in GDB 13's infrun.c, follow_exec). So where a run has stopped in code of another width than
the registers that GDB knows, the answer to its command is an exec. GDB reads the description, sets its breakpoints
again and goes on by itself, to which the real stop is the answer: nothing runs in between.

The path that an exec names is words and no path. GDB then lets go of the executable, whose file would bind it to one
architecture, and keeps the symbols; a file that it found would be loaded instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvproto.debugger.gdb.target_xml import Register, description, registers
from hvproto.debugger.goal import Stop


@dataclass(frozen=True, slots=True)
class Held:
    """A stop that GDB doesn't know of yet."""

    stop: Stop
    rest: str
    """Its reply behind the signal's number."""
    stepped: bool
    changed: int | None
    """Where watched memory has changed, if that is why."""

    @property
    def needs_stop(self) -> bool:
        """Whether GDB, having forgotten all that an exec makes it forget, would go on from a mere trap."""
        return self.stepped or self.changed is not None


class Described:
    """``wide`` is whether the registers that GDB has last read of are those of 64 bits."""

    def __init__(self, *, wide: bool) -> None:
        self.wide = wide
        self.takes_exec = False
        """Whether this GDB knows exec events."""
        self._held: Held | None = None

    @property
    def registers(self) -> tuple[Register, ...]:
        """In the order of their numbers, as GDB believes them to be."""
        return registers(wide=self.wide)

    @property
    def text(self) -> str:
        """target.xml."""
        return description(wide=self.wide)

    def announce(self, held: Held, thread: int, *, wide: bool) -> bytes:
        """The exec that is to be told before a stop."""
        self._held = held
        name = f"{64 if wide else 32}-bit code"
        if held.changed is not None:
            name += f" (the watched memory at {held.changed:#x} has changed)"
        return f"T05exec:{name.encode().hex()};thread:{thread:x};".encode()

    def release(self, now: Stop) -> Held | None:
        """What has been held back, if the run is there still: somebody else may have moved it."""
        held, self._held = self._held, None
        return held if held is not None and held.stop is now else None
