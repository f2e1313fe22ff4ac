"""The console pane: what guest and host print, the lines that were executed, and their answers."""

from __future__ import annotations

from rich.text import Text

from hvproto.debugger.tui import marks
from hvproto.debugger.tui.frame import Frame
from hvproto.debugger.tui.panes.lines import LinesPane
from hvproto.errors import World


class ConsolePane(LinesPane):
    """Each line says whose it is. Nothing is dropped; what is too long for a line goes on in the next."""

    def __init__(self, key: str, name: str) -> None:
        super().__init__(key, name)
        self._entries: list[Text] = []
        self._begun = ""
        """Whose the last entry is, if their output goes on in it."""
        self._width = 0

    def show(self, frame: Frame) -> None:
        pass

    def lay_out(self) -> None:
        width = self.scrollable_content_region.width
        if width > 0 and width != self._width:
            self._width = width
            self._lines = [line for entry in self._entries for line in self._wrapped(entry)]
            self._extend()

    def prints(self, whose: str, data: bytes) -> None:
        """Output of a kernel, as it comes: whole lines or parts of them."""
        *whole, rest = data.decode("latin-1").replace("\r", "").split("\n")
        for each in whole:
            self._print(whose, each)
            self._begun = ""
        if rest:
            self._print(whose, rest)
            self._begun = whose
        self._extend()

    def _print(self, whose: str, text: str) -> None:
        if self._begun == whose:
            begun = self._entries.pop()
            del self._lines[len(self._lines) - len(self._wrapped(begun)) :]
        else:
            world = World(whose)
            begun = Text.assemble((f"{marks.BADGES[world]} {whose:5} {marks.BEHIND} ", marks.style_of(world)))
        self._add(begun.append(_visible(text)))

    def executes(self, line: str) -> None:
        """A line that a person or a script has given."""
        self._add(Text(f"> {line}", marks.STRONG))
        self._extend()

    def answers(self, text: str, *, is_error: bool = False) -> None:
        """What came of it."""
        for line in text.splitlines():
            self._add(Text(f"! {line}", marks.ERROR) if is_error else Text(f"  {line}"))
        self._extend()

    def _add(self, entry: Text) -> None:
        self._begun = ""
        self._entries.append(entry)
        self._lines += self._wrapped(entry)

    def _wrapped(self, entry: Text) -> list[Text]:
        """In as many lines as it takes; in one, as long as nobody has seen the pane."""
        return list(entry.divide(range(self._width, len(entry), self._width))) if self._width else [entry]

    def _extend(self) -> None:
        self.set_extent(self._width, len(self._lines))
        self.call_after_refresh(self.scroll_end, animate=False)


def _visible(text: str) -> str:
    """Control characters would move the terminal's cursor."""
    return "".join(each if each.isprintable() else "·" for each in text.expandtabs(8))
