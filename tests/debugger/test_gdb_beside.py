"""GDB beside a person: at the full screen, at the prompt, at a pipe; both drive the same run."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

pytest.importorskip("textual", reason="the full-screen debugger needs Textual: pip install 'hvproto[tui]'")

from hvproto.debugger.tui.operator import Operator
from tests.debugger.gdb import Gdb, needed
from tests.debugger.runs import kernel, session
from tests.debugger.screens import Screen, on_screen
from tests.debugger.test_gdb import COUNTS
from tests.support.command import COMMAND, environment

pytestmark = needed
ENDLESS = "again: inc eax\njmp again"


async def a_gdb(screen: Screen) -> Gdb:
    """A gdb that has connected; it talks on another thread, as it lives in another process."""
    operator: Operator = screen.app._operator
    assert operator.gdb_address is not None
    gdb = await asyncio.to_thread(Gdb, operator.gdb_address[1])
    await screen.idle()
    return gdb


async def do(screen: Screen, gdb: Gdb, line: str) -> str:
    text = await asyncio.to_thread(gdb.do, line)
    await screen.idle()
    return text


async def value(screen: Screen, gdb: Gdb, expression: str) -> int:
    found = re.search(r"= (-?\w+)", await do(screen, gdb, f"print/x {expression}"))
    assert found is not None
    return int(found[1], 16)


def test_what_gdb_does_is_seen_on_the_screen_and_the_other_way_round() -> None:
    async def scenario(screen: Screen) -> None:
        gdb = await a_gdb(screen)
        await screen.press("7")
        assert any("gdb is connected" in line for line in screen.pane("console"))
        start = await value(screen, gdb, "$pc")
        await do(screen, gdb, "stepi")
        assert screen.app.frame is not None and screen.app.frame.stop.position.index == 1
        assert "[0:0:1]" in screen.text
        await screen.press("right", "right")
        await do(screen, gdb, "maintenance flush register-cache")
        assert await value(screen, gdb, "$pc") == screen.session.stop.address == start + 12
        assert await value(screen, gdb, "$ecx") == 5
        await do(screen, gdb, f"break *{start + 17}")
        await do(screen, gdb, "continue")
        assert screen.session.stop.address == start + 17 and "breakpoint" in screen.session.stop.kind
        assert f"[{screen.session.position!r}]" in screen.text
        await do(screen, gdb, "set var $ecx = 2")
        assert re.search(r"ecx +0*2\b", " ".join(screen.pane("registers")).lower())
        await do(screen, gdb, "reverse-stepi")
        assert screen.session.evaluate("ecx") == 5  # undone: the screen and gdb go back in the same time
        await asyncio.to_thread(gdb.close)

    on_screen(scenario, kernel(COUNTS), gdb=True)


def test_a_run_of_gdbs_is_stopped_by_ctrl_c_at_the_screen() -> None:
    async def scenario(screen: Screen) -> None:
        gdb = await a_gdb(screen)
        going = asyncio.create_task(asyncio.to_thread(gdb.do, "continue"))
        await screen.until(lambda: screen.app._doing == "gdb")
        await screen.until(lambda: "gdb: " in screen.lines[0] + screen.lines[1])
        await screen.press("ctrl+c")
        assert "SIGINT" in await going
        await screen.idle()
        assert screen.session.stop.kind == "interrupted" and screen.app.frame is not None
        await asyncio.to_thread(gdb.close)

    on_screen(scenario, kernel(ENDLESS), gdb=True)


def test_a_question_of_gdbs_stops_a_run_of_the_screens() -> None:
    """It would wait for its answer, and lose its patience."""

    async def scenario(screen: Screen) -> None:
        gdb = await a_gdb(screen)
        screen.app.submit("continue")
        await screen.until(lambda: screen.app._doing == "continue")
        await do(screen, gdb, "maintenance flush register-cache")
        assert await value(screen, gdb, "$eax") == screen.session.evaluate("eax") > 0
        assert screen.session.stop.kind == "interrupted"
        await asyncio.to_thread(gdb.close)

    on_screen(scenario, kernel(ENDLESS), gdb=True)


@pytest.mark.parametrize("farewell", ["kill", "detach", "disconnect"])
def test_however_gdb_goes_the_run_stays_on_the_screen(farewell: str) -> None:
    async def scenario(screen: Screen) -> None:
        gdb = await a_gdb(screen)
        await do(screen, gdb, "stepi 3")
        await do(screen, gdb, "break *0x100000")
        await do(screen, gdb, farewell)
        await asyncio.to_thread(gdb.close)
        await screen.idle()
        assert screen.session.position.index == 3 and not screen.session.breakpoints
        await screen.press("7")
        assert any("gdb has gone" in line for line in screen.pane("console"))
        await screen.press("right")
        again = await a_gdb(screen)
        assert await value(screen, again, "$pc") == screen.session.stop.address
        await asyncio.to_thread(again.close)

    on_screen(scenario, kernel(COUNTS), gdb=True)


def test_both_go_through_a_switch_of_worlds() -> None:
    async def scenario(screen: Screen) -> None:
        gdb = await a_gdb(screen)
        await screen.type("break SettingReplaced if setting == 'IDTR'")
        await do(screen, gdb, "continue")
        assert "◆ HYPERVISOR" in screen.lines[0] and "IDTR" in screen.text
        assert "IDTR" in await do(screen, gdb, "monitor settings")
        await screen.press("left")
        assert "26" in screen.lines[1]
        await asyncio.to_thread(gdb.close)

    on_screen(scenario, session(), gdb=True)


# -- the prompt --------------------------------------------------------------------------------------


class Prompt:
    """`hvproto debug --gdb` with lines on its standard input."""

    def __init__(self, *arguments: str | Path) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "debug", "--gdb", "0", *map(str, arguments)], env=environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        assert self._process.stderr is not None
        self.port = int(self._process.stderr.readline().rpartition(":")[2])

    def type(self, line: str) -> None:
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()

    def says(self, text: str) -> str:
        """All that it says up to a line with this in it."""
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if text in line:
                return said
        raise AssertionError(f"{text!r} never came:\n{said}")

    def end(self) -> int:
        """Of the input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for each in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert each is not None
            each.close()


@pytest.fixture
def prompt(tmp_path: Path) -> Iterator[Prompt]:
    image = tmp_path / "counts.asm"
    image.write_text(".origin 0x100000\n.entry start\n" + COUNTS.replace("dword", "dword ptr"))
    found = Prompt("--boot", image)
    yield found
    found.close()


def test_lines_and_gdb_take_turns(prompt: Prompt) -> None:
    prompt.type("step 2")
    prompt.says("0:0:2")
    gdb = Gdb(prompt.port)
    prompt.says("gdb is connected")
    pc = gdb.value("$pc")
    gdb.do("stepi")
    prompt.says("gdb: [0:0:3]")
    prompt.type("back 3")
    prompt.says("0:0:0")
    gdb.do("maintenance flush register-cache")
    assert gdb.value("$pc") < pc
    gdb.do("detach")
    prompt.says("gdb has gone")
    prompt.type("where")
    prompt.says("[0:0:0]")
    gdb.close()
    prompt.type("quit")
    assert prompt.end() == 0


def test_after_the_last_line_gdb_has_the_run_to_itself(prompt: Prompt) -> None:
    prompt.type("step 2")
    prompt.says("0:0:2")
    gdb = Gdb(prompt.port)
    prompt.says("gdb is connected")
    assert prompt._process.stdin is not None
    prompt._process.stdin.close()
    assert gdb.value("$pc") > 0x100000
    assert "exited" in gdb.do("continue")
    gdb.close()
    deadline = time.monotonic() + 60
    with pytest.raises(subprocess.TimeoutExpired):
        prompt._process.wait(0.3)  # it stands at its end, for the next gdb
    gdb = Gdb(prompt.port)
    gdb.do("reverse-stepi")
    gdb.do("kill")
    gdb.close()
    assert prompt._process.wait(max(1, deadline - time.monotonic())) == 0
