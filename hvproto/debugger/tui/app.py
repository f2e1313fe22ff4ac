"""The full-screen debugger: panes around one session. It shows, and hands lines of the prompt on; it knows nothing."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widgets import Input

from hvproto.debugger.repl.command import COMMANDS
from hvproto.debugger.tui.banner import Banner
from hvproto.debugger.tui.bars import KeyBar, PaneBar
from hvproto.debugger.tui.command_line import CommandLine
from hvproto.debugger.tui.frame import Frame, Request
from hvproto.debugger.tui.keys import KEYS, LOWER
from hvproto.debugger.tui.keys_screen import KeysScreen
from hvproto.debugger.tui.operator import Leaving, Operator, Outcome
from hvproto.debugger.tui.panes.code import CodePane
from hvproto.debugger.tui.panes.console import ConsolePane
from hvproto.debugger.tui.panes.lines import LinesPane
from hvproto.debugger.tui.panes.registers import RegistersPane
from hvproto.debugger.tui.panes.settings import SettingsPane
from hvproto.debugger.tui.panes.space import SpacePane
from hvproto.debugger.tui.panes.timeline import TimelinePane
from hvproto.debugger.tui.panes.walk import WalkPane
from hvproto.errors import BadInput

WIDE = (110, 38)
"""Columns and lines from which on all panes are shown at once."""
_TICK = 0.1
"""Seconds between two looks at what is being done."""
_PATIENCE = 0.3
"""Seconds after which it is said what is being done."""
_GDB = "gdb"
"""What is being done when GDB wants something."""
_TWICE = 2.0
"""Seconds in which a second Ctrl-C quits."""


class DebugApp(App[None]):
    """``script`` is executed first."""

    TITLE = "hvproto debug"
    CSS_PATH = Path(__file__).with_name("styles.tcss")
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [key.binding() for key in KEYS]

    def __init__(self, operator: Operator, script: Iterable[str] = ()) -> None:
        super().__init__()
        self._operator = operator
        self._waiting: deque[tuple[str | None, bool]] = deque([("where", False)])
        """Lines, and whether each is shown; None is GDB, which wants something."""
        self._waiting.extend((line, True) for line in script if line.strip())
        self._doing = ""
        self._since = 0.0
        self._warned = 0.0
        self._heeded: list[int] = []
        self._request = Request()
        self.frame: Frame | None = None
        """What is shown."""
        self.banner = Banner()
        self.pane_bar = PaneBar()
        self.command_line = CommandLine()
        self.code = CodePane("1", "code")
        self.registers = RegistersPane("2", "registers")
        self.timeline = TimelinePane("3", "timeline")
        self.settings_pane = SettingsPane("4", "settings")
        self.space = SpacePane("5", "map")
        self.walk = WalkPane("6", "walk")
        self.output = ConsolePane("7", "console")

    # -- layout ------------------------------------------------------------------------------

    @property
    def panes(self) -> list[LinesPane]:
        """In the order in which a grid takes them up."""
        return [self.code, self.registers, self.settings_pane, self.space, self.timeline, self.walk, self.output]

    def compose(self) -> ComposeResult:
        yield self.banner
        with Container(id="body"):
            yield from self.panes
        yield self.pane_bar
        yield self.command_line
        yield KeyBar()

    def on_mount(self) -> None:
        for pane in self.panes:
            pane.set_class(pane.pane_name in LOWER, "-lower")
        self.action_pane("timeline")
        self.set_interval(_TICK, self._tick)
        if self._operator.gdb_address is not None:
            host, port = self._operator.gdb_address
            self.output.answers(f"waiting for gdb: target remote {host}:{port}")
        self._go_on()

    def on_resize(self, event: Resize) -> None:
        self.screen_stack[0].set_class(event.size.width >= WIDE[0] and event.size.height >= WIDE[1], "-wide")

    # -- what is done ------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether something is being done, or waits for its turn."""
        return bool(self._doing or self._waiting)

    def submit(self, line: str) -> None:
        """Have a line executed, once those before it have been."""
        self._waiting.append((line, True))
        self._go_on()

    def _go_on(self) -> None:
        self._heed_gdb(not self.is_busy)
        if not self._doing and self._waiting:
            line, shows = self._waiting.popleft()
            self._doing, self._since = _GDB if line is None else line or "once more", time.monotonic()
            self.run_worker(self._do(line, shows), group="session")

    def _heed_gdb(self, on: bool) -> None:
        """Whether to look out for GDB here. While something is being done, whoever waits for the run does."""
        loop = asyncio.get_running_loop()
        for descriptor in self._heeded:
            loop.remove_reader(descriptor)
        self._heeded = self._operator.gdb_sockets if on else []
        for descriptor in self._heeded:
            loop.add_reader(descriptor, self._gdb_wants_something)

    def _gdb_wants_something(self) -> None:
        self._waiting.append((None, False))
        self._go_on()

    async def _do(self, line: str | None, shows: bool) -> None:
        if shows and line:
            self.output.executes(line)
        self._ask_for(line or "")
        try:
            if line is None:
                outcome = await self._operator.attend(self._request)
            else:
                outcome = await self._operator.perform(line, self._request)
        except Leaving:
            return
        self._doing = ""
        self._take_output()
        self._show(outcome)
        if outcome.done:
            self.exit()
            return
        self._go_on()
        if not self._doing:
            self.banner.set_busy("")

    def _ask_for(self, line: str) -> None:
        """What the next frame is to have in it."""
        word, _, argument = line.strip().partition(" ")
        try:
            if word and argument and COMMANDS.find(word).name == "pt":
                self._request.walk = argument.strip()
        except BadInput:
            pass
        self._request.known_events = self.timeline.known_events
        if self.frame is not None and self.frame.code:
            self._request.code_from, self._request.code_of = self.frame.code[0].address, self.frame.code_world

    def _show(self, outcome: Outcome) -> None:
        self.output.answers(outcome.answer)
        if outcome.error:
            self.output.answers(outcome.error, is_error=True)
            self.notify(outcome.error, severity="error", markup=False)
        if outcome.frame is not None:
            self.frame = outcome.frame
            with self.batch_update():
                self.banner.show(outcome.frame)
                for pane in self.panes:
                    pane.show(outcome.frame)

    def _tick(self) -> None:
        self._take_output()
        seconds = time.monotonic() - self._since
        if self._doing and seconds >= _PATIENCE:
            self.banner.set_busy(f"{self._doing}: {seconds:.0f} s, Ctrl-C stops it")

    def _take_output(self) -> None:
        for whose, data in self._operator.output.fetch():
            self.output.prints(whose, data)

    # -- keys --------------------------------------------------------------------------------

    def action_line(self, line: str) -> None:
        """Execute a line, unless something is being done: keys repeat faster than a long run."""
        if not self.is_busy:
            self.submit(line)

    def action_previous_event(self) -> None:
        if self.timeline.previous is not None:
            self.action_line(f"goto {self.timeline.previous!r}")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key is one: while a command is typed, its first letter's isn't."""
        return action != "type" or not (self.focused is self.command_line or len(self.screen_stack) > 1)

    def action_type(self, beginning: str) -> None:
        self.screen.set_focus(self.command_line)
        self.command_line.value = beginning
        self.command_line.cursor_position = len(beginning)

    def action_next_world(self) -> None:
        self.registers.choose_next_world()

    def action_pane(self, name: str) -> None:
        """Show a pane, and have the keys."""
        self._reveal(name)
        self.query_one(f"#{name}", LinesPane).focus()

    def _reveal(self, name: str) -> None:
        self.screen_stack[0].remove_class("-zoom")
        if name in LOWER:
            for pane in self.panes:
                pane.set_class(pane.pane_name == name, "-shown")
            self.pane_bar.choose(name)

    def action_zoom(self) -> None:
        screen = self.screen_stack[0]
        pane = self.focused if isinstance(self.focused, LinesPane) else self.timeline
        screen.toggle_class("-zoom")
        for each in self.panes:
            each.set_class(each is pane, "-zoomed")
        pane.focus()

    def action_keys(self) -> None:
        self.push_screen(KeysScreen())

    def action_interrupt(self) -> None:
        """Stop what is under way, and forget what waits; a second Ctrl-C while nothing is under way quits."""
        if self.is_busy:
            self._waiting.clear()
            self._operator.interrupt()
            return
        now = time.monotonic()
        if now - self._warned < _TWICE:
            self.exit()
        self._warned = now
        self.notify("Nothing is under way. Ctrl-C again, or q, quits.")

    def action_leave(self) -> None:
        self.exit()

    # -- messages of the parts ---------------------------------------------------------------

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.command_line.remember(event.value)
        self._reveal("console")
        self.submit(event.value)

    def on_command_line_left(self, _message: CommandLine.Left) -> None:
        shown: Any = next((pane for pane in self.panes if pane.has_class("-shown")), self.timeline)
        shown.focus()

    def on_timeline_pane_jump(self, message: TimelinePane.Jump) -> None:
        self.action_line(f"goto {message.position!r}")
