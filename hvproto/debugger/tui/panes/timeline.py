"""The timeline pane: the events of the run, those that lie ahead if they are known, and the present among them."""

from __future__ import annotations

from bisect import bisect_right
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from hvproto.debugger.goal import Stop
from hvproto.debugger.inspect.history import EventRow
from hvproto.debugger.position import START, Position
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane

_WIDTH = 160


class TimelinePane(LinesPane):
    """Up and down choose an event, Enter or a click goes there.

    A run repeats itself, so an event that was seen once is known after the way back as well.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move_page(-1)", show=False),
        Binding("pagedown", "move_page(1)", show=False),
        Binding("home", "move(-1_000_000_000)", show=False),
        Binding("end", "move(1_000_000_000)", show=False),
        Binding("enter", "jump", show=False),
        Binding("less_than_sign", "scroll_left", show=False),
        Binding("greater_than_sign", "scroll_right", show=False),
    ]

    class Jump(Message):
        """Somebody wants to go to a moment."""

        def __init__(self, position: Position) -> None:
            super().__init__()
            self.position = position

    def __init__(self, key: str, name: str) -> None:
        super().__init__(key, name)
        self._positions: list[Position] = [START]
        self._events: list[EventRow | None] = [None]
        """None for the beginning of the run."""
        self._present = 0
        """The line of the present."""
        self._is_between = False
        """Whether that is a line of its own, between two events."""
        self._cursor = 0
        self._widest = _WIDTH

    @property
    def known_events(self) -> int:
        return len(self._events) - 1

    @property
    def previous(self) -> Position | None:
        """The moment of the last event before the present."""
        index = self._present - 1
        return self._positions[index] if index >= 0 else None

    def show(self, frame: Frame) -> None:
        self._frame = frame
        for position, event in frame.events:
            self._positions.append(position)
            self._events.append(event)
            self._widest = max(self._widest, len(event.told) + 60)
        here = frame.stop.position
        index = bisect_right(self._positions, here)
        self._is_between = self._positions[index - 1] != here
        self._present = self._cursor = index if self._is_between else index - 1
        happened = index - 1
        ahead = len(self._positions) - index
        self.border_subtitle = f"{happened:,} events" + (f", {ahead:,} known ahead" if ahead else "")
        self._extend()
        self.bring_into_view(self._cursor)

    def lay_out(self) -> None:
        self._extend()
        self.bring_into_view(self._cursor)

    def _extend(self) -> None:
        self.set_extent(self._widest, len(self._positions) + self._is_between)

    def _index(self, line: int) -> int | None:
        """Which event a line shows; None for the present between two."""
        if self._is_between and line == self._present:
            return None
        return line - (self._is_between and line > self._present)

    # -- lines -------------------------------------------------------------------------------

    def line(self, index: int) -> Text:
        event = self._index(index)
        if event is None:
            assert self._frame is not None
            text = _present_line(self._frame.stop)
        else:
            mark = marks.HERE if index == self._present else marks.BEHIND if index < self._present else marks.AHEAD
            style = marks.STRONG if index == self._present else "" if index < self._present else "italic"
            text = Text(f"{mark} {_told(self._events[event])}", style)
        if index == self._cursor and self.has_focus:
            text.stylize("reverse")
        return text

    # -- choosing ----------------------------------------------------------------------------

    def action_move(self, count: int) -> None:
        self._cursor = min(max(0, self._cursor + count), self.virtual_size.height - 1)
        self.bring_into_view(self._cursor)
        self.refresh()

    def action_move_page(self, count: int) -> None:
        self.action_move(count * max(1, self.scrollable_content_region.height - 1))

    def action_jump(self) -> None:
        event = self._index(self._cursor)
        if event is not None:
            self.post_message(self.Jump(self._positions[event]))

    def on_click(self, event: Click) -> None:
        """A click on a line goes to its moment."""
        place = event.get_content_offset(self)
        if place is None:
            return
        line = place.y + round(self.scroll_y)
        if line < self.virtual_size.height:
            self._cursor = line
            self.refresh()
            self.action_jump()


def _told(event: EventRow | None) -> str:
    if event is None:
        return f"{'0':>13}     the beginning"
    step = "" if event.step is None else str(event.step)
    return f"{event.at:13,} {step:>3} {event.kind:16} {event.told}"


def _present_line(stop: Stop) -> Text:
    if stop.ended:
        what = f"THE END: {stop.reason}"
    else:
        symbol = f" ({stop.symbol})" if stop.symbol else ""
        what = f"{marks.BADGES[stop.world]} {stop.world.upper()} at {stop.address:#010x}{symbol}"
    return Text(f"{marks.HERE} {stop.now:13,}     {what}", marks.STRONG)
