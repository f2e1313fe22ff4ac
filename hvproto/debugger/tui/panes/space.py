"""The address-space pane: what is mapped where, the region, and the room that there is for it."""

from __future__ import annotations

from rich.text import Text

from hvproto.debugger.inspect.address_space import AddressMap, PageRun
from hvproto.debugger.inspect.table import columns
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane

_LOW = 1 << 32
_GLYPHS = {"REGION": "█", "guest": "▒", "": "▒", "guest, hidden": "░"}
_NOTHING = "·"


class SpacePane(LinesPane):
    """The region's new and old place, a strip of the lowest 4 GiB if all is there, then all runs of pages."""

    def lines(self, frame: Frame, width: int) -> list[Text]:
        space, region = frame.space, frame.space.region
        self.border_subtitle = f"CR3 {space.cr3:#x}"
        if not space.is_paged:
            return [Text("Paging is off: linear is physical.")]
        lines = []
        if region is not None:
            last = region.last(region.base, region.pages)
            lines.append(Text(f"█ region {region.base:#x}-{last:#x}, {region.pages} pages", marks.STRONG))
        if region is not None and region.before is not None:
            last = region.last(region.before, region.pages)
            lines.append(Text(f"  before {region.before:#x}-{last:#x}, until {region.moved_at:,}"))
        if all(run.last < _LOW for run in space.runs):
            lines += [Text(strip(space, width)), Text("█ region  ▒ mapped  ░ hidden  · nothing"[:width], marks.WEAK)]
        rows = [(_GLYPHS[run.what], *run.cells(), _told(run)) for run in space.runs]
        rows += [(_NOTHING, *hole.cells(), f"room: {hole.pages:,} pages") for hole in space.holes]
        every = columns(rows, blanks=1).split("\n") if rows else []
        kinds = [run.what for run in space.runs] + ["free"] * len(space.holes)
        styles = {"REGION": marks.STRONG, "guest, hidden": marks.WEAK}
        return lines + [Text(line, styles.get(kind, "")) for line, kind in zip(every, kinds, strict=True)]


def strip(space: AddressMap, width: int) -> str:
    """4 GiB in so many cells; each shows the weightiest of what it covers."""
    cells = [_NOTHING] * width
    weights = [_NOTHING, "░", "▒", "█"]
    for run in space.runs:
        glyph = _GLYPHS[run.what]
        for cell in range(run.first * width // _LOW, run.last * width // _LOW + 1):
            cells[cell] = max(cells[cell], glyph, key=weights.index)
    return "".join(cells)


def _told(run: PageRun) -> str:
    return f"{run.what} {run.rights}".strip()
