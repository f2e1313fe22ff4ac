"""The page-walk pane: how the guest's table, the mirror and physical memory answer for an address."""

from __future__ import annotations

from itertools import zip_longest

from rich.text import Text

from hvproto.debugger.inspect.table import columns
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane


class WalkPane(LinesPane):
    """The columns are side by side where there is room, else below each other."""

    def lines(self, frame: Frame, width: int) -> list[Text]:
        walk = frame.walk
        self.border_subtitle = walk.asked or "the next instruction"
        if walk.error:
            return [Text(walk.error)]
        heads = [each.head for each in walk.columns]
        rows = list(zip_longest(*(each.lines for each in walk.columns), fillvalue=""))
        first, *others = columns(rows, head=heads).split("\n")
        lines = [Text(f"{walk.address:#x}", marks.STRONG)]
        if max(len(line) for line in [first, *others]) <= width:
            return [*lines, Text(first, marks.STRONG), *map(Text, others)]
        for each in walk.columns:
            lines += [Text(each.head, marks.STRONG), *(Text(f"  {line}") for line in each.lines)]
        return lines
