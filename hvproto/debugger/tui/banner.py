"""The banner: whose processor it is, and where within a switch the run stands."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from hvproto.debugger.inspect.history import event_row
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.errors import World

_FIGURES = (
    ("switch", {24: "read", 26: "save", 28: "replace", 30: "restore"}),
    ("mapping", {40: "write", 42: "conflict", 44: "none", 46: "move"}),
)
"""The steps of the patent's figures 2 and 4."""


class Banner(Static):
    """Two lines."""

    def __init__(self) -> None:
        super().__init__(id="banner")
        self._frame: Frame | None = None
        self._busy = ""

    def show(self, frame: Frame) -> None:
        self._frame = frame
        self._tell()

    def set_busy(self, what: str) -> None:
        """What is being done; nothing, with an empty text."""
        if what != self._busy:
            self._busy = what
            self._tell()

    def on_resize(self) -> None:
        self._tell()

    def _tell(self) -> None:
        frame = self._frame
        if frame is None:
            self.update(Text(self._busy))
            return
        stop = frame.stop
        world = stop.world if frame.has_host else frame.code_world
        first = Text()
        if self._busy:
            first.append(f" {self._busy} ", marks.STRONGEST).append(f"  from cycle {stop.now:,}")
        else:
            first.append(f" {marks.BADGES[world]} {world.upper()} ", f"{marks.style_of(world)} reverse")
            first.append(" has ended" if stop.ended else " has the processor", marks.STRONG)
            first.append(f"  cycle {stop.now:,}")
            first.append("" if stop.ended else f"  [{stop.position!r}]")
        second = self._in_event(frame) if stop.event else self._between(frame)
        lines = [first, second]
        for line in lines:
            line.truncate(max(8, self.size.width), overflow="ellipsis")
        self.update(Text("\n").join(lines))

    @staticmethod
    def _in_event(frame: Frame) -> Text:
        event = event_row(frame.stop.event)
        line = Text(" ")
        for figure, steps in _FIGURES:
            if event.step in steps:
                line.append(f"{figure}: ")
                for step, name in steps.items():
                    if step == event.step:
                        line.append(f" {marks.HERE}{step} {name} ", marks.STRONGEST)
                    else:
                        line.append(f" {step} {name}", marks.WEAK)
                line.append("  ")
        return line.append(f"{event.kind} {event.told}", marks.STRONG)

    @staticmethod
    def _between(frame: Frame) -> Text:
        line = Text(" ")
        if frame.stop.ended:
            status = "" if frame.stop.status is None else f"exit status {frame.stop.status}: "
            return line.append(f"{status}{frame.stop.reason}", marks.STRONG)
        if frame.stop.reason and frame.stop.kind not in ("step", "goal"):
            line.append(f"{frame.stop.reason}  ", marks.STRONG)
        rows = [row for row in frame.worlds if row.world is not frame.stop.world or row.world is World.HYPERVISOR]
        return line.append("; ".join(f"{row.world} {row.stands}" for row in rows))
