"""A pane of lines: what all panes have in common. Lines are made when they are drawn, however many there are."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame


class LinesPane(ScrollView, can_focus=True, inherit_bindings=False):
    """``title`` with its key stands in the border. Left and right belong to time; `<` and `>` scroll sideways."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_up", show=False),
        Binding("down", "scroll_down", show=False),
        Binding("pageup", "page_up", show=False),
        Binding("pagedown", "page_down", show=False),
        Binding("home", "scroll_home", show=False),
        Binding("end", "scroll_end", show=False),
        Binding("less_than_sign", "scroll_left", show=False),
        Binding("greater_than_sign", "scroll_right", show=False),
    ]

    def __init__(self, key: str, name: str) -> None:
        super().__init__(id=name)
        self.key, self.pane_name = key, name
        self.border_title = f"{key} {name}"
        self._lines: list[Text] = []
        self._frame: Frame | None = None

    # -- what a pane says --------------------------------------------------------------------

    def show(self, frame: Frame) -> None:
        """Show another stop."""
        self._frame = frame
        self.lay_out()

    def lay_out(self) -> None:
        """Make the lines anew, for the width that there is."""
        if self._frame is not None:
            self.set_lines(self.lines(self._frame, max(8, self.scrollable_content_region.width)))

    def lines(self, frame: Frame, width: int) -> list[Text]:
        """The lines of a frame, of about that many columns if they can be; wider ones are scrolled to."""
        return []

    def line(self, index: int) -> Text:
        """One line, from 0."""
        return self._lines[index]

    # -- how it is shown ---------------------------------------------------------------------

    def set_lines(self, lines: list[Text]) -> None:
        self._lines = lines
        self.set_extent(max((line.cell_len for line in lines), default=0), len(lines))

    def set_extent(self, width: int, height: int) -> None:
        """How large all lines are, in cells."""
        self.virtual_size = Size(width, height)
        self.refresh()

    def bring_into_view(self, index: int) -> None:
        """Scroll as little as shows this line and one or two behind it, once the lines are there."""
        self.call_after_refresh(self._bring_into_view, index)

    def _bring_into_view(self, index: int) -> None:
        height = self.scrollable_content_region.height
        top = round(self.scroll_y)
        last = min(index + min(2, height // 2), self.virtual_size.height - 1)
        if index < top:
            self.scroll_to(y=index, animate=False)
        elif height and last >= top + height:
            self.scroll_to(y=last - height + 1, animate=False)

    def on_resize(self, _event: Resize) -> None:
        self.lay_out()

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        index = top + y
        text = self.line(index) if index < self.virtual_size.height else Text()
        width = self.scrollable_content_region.width
        console = self.app.console
        # A text without spans is rendered without its own style.
        segments = Segment.apply_style(text.render(console), console.get_style(text.style))
        strip = Strip(segments, text.cell_len).crop_extend(left, left + width, None)
        if text.cell_len > left + width:
            strip = Strip([*strip.crop(0, width - 1), Segment(marks.MORE)], width)
        return strip.apply_style(self.rich_style)
