"""All keys: what they are bound to, what the footer and the help say of them."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True, slots=True)
class Key:
    """``keys`` as Textual calls them; ``short`` is the footer's word, if it is to have one."""

    keys: str
    shown: str
    action: str
    help: str
    short: str = ""
    priority: bool = False
    """Whether the app takes it before any pane does: what comes right behind it is for who has the keys then."""

    def binding(self) -> Binding:
        return Binding(self.keys, self.action, self.help, show=False, key_display=self.shown, priority=self.priority)


PANES = (("1", "code"), ("2", "registers"), ("3", "timeline"), ("4", "settings"), ("5", "map"), ("6", "walk"),
         ("7", "console"))  # fmt: skip
LOWER = tuple(name for _, name in PANES[2:])
"""Those that take turns where there is no room for all."""

KEYS = (
    Key("left", "←", "line('back')", "one moment back: the instruction or event before", "back"),
    Key("right", "→", "line('step moment')", "one moment on", "on"),
    Key("left_square_bracket,shift+left", "[", "previous_event", "the event before", "event"),
    Key("right_square_bracket,shift+right", "]", "line('step event')", "the next event", "event"),
    Key("s", "s", "line('step setting')", "the next setting that a switch saves, replaces or restores", "setting"),
    Key("w", "w", "line('step switch')", "the end of the next decoupling or recoupling"),
    Key("e", "e", "line('step exit')", "the next exception of the guest"),
    Key("n", "n", "line('next')", "the next instruction, over calls"),
    Key("f", "f", "line('finish')", "behind the return from this function"),
    Key("c", "c", "line('continue')", "to a breakpoint or the end", "continue"),
    Key("C", "C", "line('back-continue')", "back to where a breakpoint would have stopped last"),
    Key(
        "colon",
        ":",
        "type('')",
        "type a command; Tab completes, ↑ and ↓ are its history, Esc leaves",
        "type",
        priority=True,
    ),
    Key("b", "b", "type('break ')", "type where to stop", priority=True),
    Key("g", "g", "type('goto ')", "type a position, a cycle, start or end", priority=True),
    Key("p", "p", "type('pt ')", "type the address whose page walk is to be shown", priority=True),
    Key("r", "r", "next_world", "the registers of another world"),
    Key("z", "z", "zoom", "the pane alone, and back", "zoom"),
    *(Key(key, key, f"pane('{name}')", f"the {name} pane") for key, name in PANES),
    Key("question_mark", "?", "keys", "these keys", "keys"),
    Key("ctrl+c", "Ctrl-C", "interrupt", "stop what is under way; twice, if nothing is, to quit", priority=True),
    Key("q", "q", "leave", "quit", "quit"),
    Key("ctrl+q", "Ctrl-Q", "leave", "quit, from the command line, too", priority=True),
)
IN_PANES = (
    ("↑ ↓ PgUp PgDn Home End", "scroll; in the timeline: choose"),
    ("< >", "scroll sideways"),
    ("Enter", "in the timeline: go there; a click on a line does, too"),
    ("Tab Shift-Tab", "the next pane, the one before"),
)


def overview() -> list[tuple[str, str]]:
    """Every key, and what it is for."""
    return [*((key.shown, key.help) for key in KEYS), *IN_PANES]
