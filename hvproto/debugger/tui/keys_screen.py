"""The screen that lists the keys."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from hvproto.debugger.inspect.table import columns
from hvproto.debugger.tui import marks
from hvproto.debugger.tui.keys import overview

_MARKS = (
    (marks.HERE, "the next instruction, the present, the step of the switch"),
    (marks.CHANGED, "changed since the stop before"),
    (f"{marks.DIFFERS} {marks.SAME}", "not the host's; as the host has it"),
    (f"{marks.BEHIND} {marks.AHEAD}", "an event that has happened; one that is known to lie ahead"),
    (" ".join(marks.BADGES.values()), "host, hypervisor, guest"),
)


class KeysScreen(ModalScreen[None]):
    """Closed by Esc, q, ? or Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="keys") as box:
            box.border_title = "keys and marks (Esc closes)"
            yield Static(Text(columns([*overview(), ("", ""), *_MARKS])))
