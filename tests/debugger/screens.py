"""The full-screen debugger under Textual's pilot: keys and clicks go in, what a person would see comes out."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Awaitable, Callable
from typing import Any

from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.tui.app import DebugApp
from hvproto.debugger.tui.operator import Operator, Output

_TEXT = re.compile(r'<text class="(?P<style>[^"]*)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)"[^>]*>(?P<text>[^<]*)</text>')
_CELL, _LINE, _FIRST = 12.2, 24.4, 20
"""The sizes of a cell in Textual's pictures, and where the first line stands."""


class Screen:
    """An app with its pilot."""

    def __init__(self, app: DebugApp, pilot: Any, session: DebugSession) -> None:
        self.app, self.pilot, self.session = app, pilot, session

    async def idle(self) -> None:
        """Until all is done, and drawn."""
        quiet = 0
        while quiet < 4:  # a message may lead to another one, a refresh as well
            await self.pilot.pause(0)
            quiet = 0 if self.app.is_busy else quiet + 1

    async def press(self, *keys: str) -> None:
        """Keys that aren't letters of a command. The pilot's own way waits for the machine to be idle after each."""
        for key in keys:
            self.app.simulate_key(key)
            await self.idle()

    async def type(self, line: str) -> None:
        """A line on the command line, and back to the panes."""
        await self.press("colon")
        self.app.command_line.value = line
        await self.press("enter", "escape")

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it never came to it:\n{self.text}")

    def picture(self) -> str:
        """The screen as SVG, with names that are the same each time."""
        return re.sub(r"terminal-\d+", "terminal", self.app.export_screenshot())

    def styled(self, how: str) -> list[str]:
        """The texts that are drawn so: "bold", for example."""
        picture = self.picture()
        classes = set(re.findall(rf"\.(terminal-r\d+) \{{[^}}]*{how}", picture))
        return [found["text"] for found in _TEXT.finditer(picture) if found["style"] in classes]

    @property
    def lines(self) -> list[str]:
        """The screen line by line."""
        rows: dict[int, list[tuple[int, str]]] = {}
        for found in _TEXT.finditer(self.app.export_screenshot()):
            if "title" not in found["style"]:
                column = round(float(found["x"]) / _CELL)
                row = round((float(found["y"]) - _FIRST) / _LINE)
                rows.setdefault(row, []).append(
                    (column, html.unescape(found["text"]).replace("\xa0", " ").rstrip("\n"))
                )
        lines = []
        for row in range(self.app.size.height):
            line = ""
            for column, text in sorted(rows.get(row, [])):
                line = line.ljust(column) + text
            lines.append(line)
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def pane(self, name: str) -> list[str]:
        """What is seen of a pane within its border."""
        region = self.app.query_one(f"#{name}").content_region
        lines = self.lines[region.y : region.bottom]
        return [line[region.x : region.right].rstrip() for line in lines]


def on_screen(
    scenario: Callable[[Screen], Awaitable[None]],
    build: Build,
    *,
    size: tuple[int, int] = (80, 24),
    script: list[str] = [],  # noqa: B006
    gdb: bool = False,
) -> DebugApp:
    """Play a scenario with a run, and a GDB server beside if that is wanted; the app, once it has ended."""
    output = Output()
    with DebugSession(build, output) as session:
        operator = Operator(session, output, ("127.0.0.1", 0) if gdb else None)
        app = DebugApp(operator, script)

        async def play() -> None:
            async with app.run_test(size=size) as pilot:
                screen = Screen(app, pilot, session)
                await screen.idle()
                await scenario(screen)

        try:
            asyncio.run(play())
        finally:
            operator.close()
    return app
