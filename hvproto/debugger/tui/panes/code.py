"""The disassembly pane: the code around the next instruction."""

from __future__ import annotations

from rich.text import Text

from hvproto.debugger.inspect.memory import CodeLine
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane

_WIDE, _WIDEST = 62, 90
"""Columns from which on there is room for symbols, and for the bytes."""


class CodePane(LinesPane):
    """The next instruction is marked, and in bold letters."""

    def show(self, frame: Frame) -> None:
        super().show(frame)
        here = frame.stop.address
        symbol = frame.stop.symbol
        self.border_subtitle = f"{frame.code_world}{f' {symbol}' if symbol else ''}"
        index = next((index for index, line in enumerate(frame.code) if line.address == here), None)
        if index is not None:
            self.bring_into_view(index)

    def lines(self, frame: Frame, width: int) -> list[Text]:
        return [self._line(line, line.address == frame.stop.address, width) for line in frame.code]

    @staticmethod
    def _line(line: CodeLine, is_next: bool, width: int) -> Text:
        text = Text(f"{marks.HERE if is_next else ' '} {line.address:08x} ", style=marks.STRONG if is_next else "")
        if width >= _WIDE:
            text.append(f"{_shortened(line.symbol, 22):22} ", style="" if is_next else marks.WEAK)
        if width >= _WIDEST:
            text.append(f"{line.code.hex(' '):22} ", style="" if is_next else marks.WEAK)
        return text.append(line.text)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[1 - width :]}"
