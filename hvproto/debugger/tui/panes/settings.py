"""The settings pane: the host's, what the save area holds, what is loaded now."""

from __future__ import annotations

from rich.text import Text

from hvproto.debugger.inspect.settings import SettingRow
from hvproto.debugger.inspect.table import columns
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane


class SettingsPane(LinesPane):
    """What is as the host has it is written as `=`, so that what differs catches the eye, with its mark."""

    def __init__(self, key: str, name: str) -> None:
        super().__init__(key, name)
        self._before: dict[str, SettingRow] = {}

    def show(self, frame: Frame) -> None:
        if self._frame is not None:
            self._before = {row.name: row for row in self._frame.settings}
        super().show(frame)

    def lines(self, frame: Frame, width: int) -> list[Text]:
        if not frame.has_host:
            self.border_subtitle = "the bare machine's"
            return self._styled([(self._mark_changed(row), row.loaded) for row in frame.settings], ("", "now"), frame)
        count = sum(row.differs for row in frame.settings)
        self.border_subtitle = f"{count} {marks.DIFFERS} the host's" if count else "all the host's"
        rows: list[tuple[str, ...]] = [
            (
                self._mark_changed(row), row.hosts, marks.SAME if row.saved == row.hosts else row.saved,
                row.loaded if row.differs else marks.SAME, f"{marks.DIFFERS if row.differs else ' '} {row.owner}",
            )
            for row in frame.settings
        ]  # fmt: skip
        return self._styled(rows, ("", "host", "RAM", "now", ""), frame)

    def _mark_changed(self, row: SettingRow) -> str:
        before = self._before.get(row.name, row)
        return f"{row.name}{marks.CHANGED if before.loaded != row.loaded else ''}"

    @staticmethod
    def _styled(rows: list[tuple[str, ...]], head: tuple[str, ...], frame: Frame) -> list[Text]:
        first, *others = columns(rows, head=head, blanks=1).split("\n")
        styles = [marks.STRONG if row.differs else "" for row in frame.settings]
        return [Text(first, marks.WEAK), *(Text(line, style) for line, style in zip(others, styles, strict=True))]
