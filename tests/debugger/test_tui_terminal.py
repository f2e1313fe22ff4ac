"""The full-screen debugger in a real terminal, tmux: keys as bytes, and what is left behind, whatever ends it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.support.command import ROOT

pytest.importorskip("textual", reason="the full-screen debugger needs Textual: pip install 'hvproto[tui]'")
if shutil.which("tmux") is None:
    pytest.skip("tmux isn't installed: apt-get install tmux", allow_module_level=True)

_numbers = count(10**12 + 100 * os.getpid())
"""One for each terminal, and as limits of runs too large to be reached."""
_PATIENCE = 120
"""Seconds until a test gives up; a busy machine takes some of them."""


class Terminal:
    """A tmux of its own with a shell in it, and a debugger that has a number of its own among its arguments."""

    def __init__(self, folder: Path, number: int) -> None:
        self._name, self.number = f"hvproto-{number}", number
        self._before, self._after = folder / "before", folder / "after"
        others = ("NO_COLOR", "TMUX", "COLUMNS", "LINES")  # of the terminal that the tests are run at
        environment = {name: value for name, value in os.environ.items() if name not in others}
        self._environment = {**environment, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "PS1": "$ "}
        self("new-session", "-d", "-x", "80", "-y", "24", "sh")
        self("set-option", "-g", "remain-on-exit", "on")

    def __call__(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-f", os.devnull, "-L", self._name, *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout

    def debug(self, *arguments: str, tui: bool = True) -> None:
        face = ["--tui"] if tui else []
        command = [sys.executable, "-m", "hvproto", "debug", *face, "--limit", str(self.number), *arguments]
        line = f"stty -a > {self._before}; {shlex.join(command)}; s=$?; stty -a > {self._after}; echo status=$s."
        self("send-keys", line, "Enter")

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def click(self, x: int, y: int) -> None:
        """What a terminal sends for a click on a cell, from 0 (xterm's SGR encoding)."""
        for end in "Mm":
            self("send-keys", "-l", f"\x1b[<0;{x + 1};{y + 1}{end}")

    @property
    def lines(self) -> list[str]:
        return self("capture-pane", "-p").splitlines()

    def shows(self, *parts: str) -> None:
        """Wait until all of this is on the screen."""
        self.until(lambda: all(part in "\n".join(self.lines) for part in parts))

    def until(self, condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < _PATIENCE, "it never came to it:\n" + "\n".join(self.lines)
            time.sleep(0.05)

    @property
    def processes(self) -> list[int]:
        """Of the debugger and all that it has forked, whoever their parents are now."""
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = each.read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.number).encode() in arguments:
                found.append(int(each.parent.name))
        return sorted(found)

    def is_put_right(self) -> None:
        """Once the debugger has ended: the terminal is what it was, and nobody is left."""
        self.until(lambda: re.search(r"status=\d+\.", "\n".join(self.lines)) is not None)
        assert self("display-message", "-p", "#{alternate_on}#{mouse_any_flag}#{cursor_flag}").strip() == "001"
        assert self._before.read_text() == self._after.read_text()
        self.until(lambda: not self.processes)
        self.press("echo 'still a she'll", "Enter")
        self.shows("still a shell")

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._name, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path, next(_numbers))
    yield found
    found.close()


def test_a_session_at_a_terminal(terminal: Terminal) -> None:
    terminal.debug()
    terminal.shows("■ HOST  has the processor", "[0:0:0]", "? keys")
    terminal.press("Right")
    terminal.shows("[0:0:1]")
    terminal.press("Left")
    terminal.shows("[0:0:0]")
    terminal.press("s")
    terminal.shows("◆ HYPERVISOR", "▶26 save")
    for _ in range(3):
        terminal.press("Left")
        terminal.shows("■ HOST")
        terminal.press("Right")
        terminal.shows("◆ HYPERVISOR")
    assert len(terminal.processes) > 3
    terminal.click(terminal.lines[-3].index("4 settings"), 21)
    terminal.shows("[4 settings]", "IDTR")
    terminal.press(":", "break Relocated", "Enter")
    terminal.shows("1: event Relocated", "[7 console]")
    terminal.press("Escape")
    terminal("resize-window", "-x", "120", "-y", "40")
    terminal.shows("4 settings ─", "6 walk ─", "7 console ━")
    terminal.press("c")
    terminal.shows("▶46 move", "before 0xffff9000")
    terminal("resize-window", "-x", "80", "-y", "24")
    terminal.shows("[7 console]", "▶46 move")
    terminal.press("q")
    terminal.is_put_right()
    assert "status=0." in "\n".join(terminal.lines)
    assert "Traceback" not in "\n".join(terminal.lines)


def _debugger(terminal: Terminal) -> int:
    """The first process: the others are forked of it."""
    return terminal.processes[0]


ENDS: dict[str, Callable[[Terminal], None]] = {
    "q": lambda terminal: terminal.press("q"),
    "SIGTERM": lambda terminal: os.kill(_debugger(terminal), signal.SIGTERM),
    "SIGINT": lambda terminal: os.kill(_debugger(terminal), signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_it_in_the_middle_of_a_run(terminal: Terminal, end: str) -> None:
    terminal.debug("--boot", "forever")
    terminal.shows("[0:0:0]")
    terminal.press("c")
    terminal.shows("continue:", "Ctrl-C stops it")
    ENDS[end](terminal)
    terminal.is_put_right()


def test_ctrl_c_stops_the_run_and_twice_more_quits(terminal: Terminal) -> None:
    terminal.debug("--boot", "forever")
    terminal.shows("[0:0:0]")
    terminal.press("c")
    terminal.shows("continue:")
    terminal.press("C-c")
    terminal.shows("interrupted")
    terminal.until(lambda: "continue:" not in "\n".join(terminal.lines))
    terminal.press("C-c", "C-c")
    terminal.is_put_right()


@pytest.mark.parametrize("kill", ["the terminal", "the debugger"])
def test_no_process_outlives_what_it_belongs_to(terminal: Terminal, kill: str) -> None:
    terminal.debug("--boot", "forever")
    terminal.shows("[0:0:0]")
    terminal.press("c")
    terminal.shows("continue:")
    if kill == "the terminal":
        terminal("kill-pane")
    else:
        os.kill(_debugger(terminal), signal.SIGKILL)
    terminal.until(lambda: not terminal.processes)


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb isn't installed")
def test_the_prompt_keeps_what_is_typed_while_gdb_has_its_turn(terminal: Terminal) -> None:
    pytest.importorskip("prompt_toolkit", reason="a line is kept by prompt_toolkit: pip install 'hvproto[debug]'")
    from tests.debugger.gdb import Gdb

    terminal.debug("--boot", "forever", "--gdb", "0", tui=False)
    terminal.shows("waiting for gdb", "(hvproto)")
    terminal.press("step 2")
    terminal.shows("(hvproto) step 2")
    port = re.search(r"target remote 127\.0\.0\.1:(\d+)", "\n".join(terminal.lines))
    assert port is not None
    gdb = Gdb(int(port[1]))
    terminal.shows("gdb is connected", "(hvproto) step 2")
    with ThreadPoolExecutor(1) as other:
        going = other.submit(gdb.do, "continue")
        terminal.until(lambda: "(hvproto)" not in "\n".join(terminal.lines))
        terminal.press("C-c")
        assert "SIGINT" in going.result()
    terminal.shows("interrupted", "(hvproto) step 2")
    gdb.close()
    terminal.shows("gdb has gone", "(hvproto) step 2")
    terminal.press("C-c")
    terminal.press("q", "Enter")
    terminal.is_put_right()
