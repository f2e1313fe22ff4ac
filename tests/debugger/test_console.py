"""The debugger's prompt: each command's answer, its help, scripts and pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvproto.debugger.position import Position
from hvproto.debugger.repl.command import COMMANDS
from hvproto.debugger.repl.console import Console
from hvproto.debugger.session import DebugSession
from hvproto.errors import BadInput
from tests.debugger.runs import session


@pytest.fixture(scope="module")
def moved() -> Iterator[Console]:
    """A run that stands at the first move of the region."""
    with DebugSession(session()) as debug:
        console = Console(debug)
        console.execute("break Relocated")
        assert "step 46 Relocated" in console.execute("continue")
        yield console


@pytest.mark.parametrize("name", COMMANDS.by_name)
def test_help_has_examples_that_are_understood(name: str, moved: Console) -> None:
    command = COMMANDS.by_name[name]
    text = moved.execute(f"help {name}")
    assert command.usage in text and command.summary in text
    assert command.examples
    for example in command.examples:
        assert COMMANDS.find(example.split()[0]) is command
    assert name in moved.execute("help")


ANSWERS = {
    "worlds": ("host ", "hypervisor", "guest ", "state saved", "on the processor"),
    "settings": ("IDTR", "* hypervisor's", "saved in RAM"),
    "save-area": ("header 53415645", "TR ", "EFER"),
    "map": ("the region: 0x", "until event Relocated", "REGION", "holes of the guest's own tables"),
    "conflicts": ("the guest maps", "a store to the page table"),
    "regs": ("registers of the guest", "CPL 3", "compare_memory"),
    "regs host": ("registers of the host (saved)", "eip "),
    "idt": ("interrupt gate", "region+0xe0", "0 gates are not present"),
    "idt guest": ("page_fault_entry",),
    "gdt": ("code 64", "TSS"),
    "gdt guest": ("TSS, busy",),
    "tss": ("RSP0", "I/O map"),
    "tss guest": ("ESP0",),
    "pt eip": ("the guest's, CR3", "the mirror's, CR3", "= HPA"),
    "x esp 32": ("0x",),
    "x 0x100000 16 physical": ("0x00100000",),
    "disas eip 3": ("=> ",),
    "disas": ("=> ", "<compare_memory"),
    "source": ("greedy.asm",),
    'search "hello, I am"': ("1 found",),
    "search 53415645": ("HPA 0x01",),
    "print idtr.limit": ("0xfff",),
    "print cr3 & 0xfff": ("0x0",),
    "events 3": ("Conflict", "Relocated", "before these"),
    "events all Relocated": ("old 0xffff",),
    "where": ("step 46",),
    "breakpoints": ("1: event Relocated",),
    "echo a text": ("a text",),
    "help expressions": ("u8(x)",),
}


@pytest.mark.parametrize("line", ANSWERS)
def test_what_commands_show(line: str, moved: Console) -> None:
    answer = moved.execute(line)
    for part in ANSWERS[line]:
        assert part in answer


@pytest.mark.parametrize(
    "line",
    ["nonsense", "s x", "step 1 2 3", "break", "break nowhere", "watch", "watch 0 0", "delete 99", "goto 1:2", "goto", "x",
     "search zz", "search ''", "regs moon", "events few", "diff one", "pt", "pt 1 +", "until", "b Relocated in space",
     "print 1 / 0", "print 'a' << 3", "print 1 << 9999", "trace many", "save-area 1", "t", "x 0 -1"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(line: str, moved: Console) -> None:
    here = moved.debug.position
    with pytest.raises(BadInput):
        moved.execute(line)
    assert moved.debug.position == here


@pytest.mark.parametrize("world", ["guest", "hypervisor"])
def test_an_event_is_in_the_hypervisor_and_in_the_world_that_has_the_processor(world: str) -> None:
    with DebugSession(session()) as debug:
        console = Console(debug)
        console.execute(f"break Relocated in {world}")
        console.execute("break Relocated in host")
        assert "step 46 Relocated" in console.execute("continue") and debug.stop.breakpoint == 1


def test_the_hosts_registers_are_called_as_the_host_knows_them_all_through_a_switch() -> None:
    with DebugSession(session()) as debug:
        console = Console(debug)
        console.execute("break Recoupled")
        console.execute("step setting 30")  # EFER is still the hypervisor's, or no longer: the host's code has 32 bits
        while "30 SettingRestored" not in console.execute("where"):
            console.execute("step setting")
        for _ in range(8):
            assert "eip    0200515f" in console.execute("regs host")
            console.execute("step setting")


def test_there_and_back_with_snapshots() -> None:
    with DebugSession(session()) as debug:
        console = Console(debug)
        console.execute("goto 286,000")
        console.execute("snapshot before")
        console.execute("step 20")
        assert "eip" in console.execute("diff before")
        console.execute("snapshot after")
        console.execute("goto before")
        assert console.execute("diff before") == "0 pages of RAM differ"
        assert "20 pages" not in console.execute("diff before after")
        first = console.execute("next")
        assert console.execute("back") != first
        assert console.execute("") != console.execute("back")  # an empty line goes one more back
        assert console.execute("goto start").startswith("[0:0:0]")
        assert debug.position == Position(0, 0, 0)
        console.execute("watch GDTR in host")
        assert "watch 1: setting GDTR" in console.execute("run")


def hvproto(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hvproto", "debug", *arguments], input=stdin, capture_output=True, text=True, timeout=120
    )


def test_a_pipe_and_a_script(tmp_path: Path) -> None:
    script = tmp_path / "commands.txt"
    script.write_text("# a comment\nbreak start\ncontinue\n")
    done = hvproto("--boot", "hello", "-x", str(script), stdin="regs\nnonsense\nback\nquit\nregs\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "(hvproto) regs" in done.stdout
    assert "there is no command 'nonsense'" in done.stdout
    assert done.stdout.count("registers of the guest") == 1


@pytest.mark.parametrize(("before", "long_one"), [("step", "continue"), ("goto 10000000", "back 1000000")])
def test_ctrl_c_stops_the_run_and_nothing_else(before: str, long_one: str, tmp_path: Path) -> None:
    script = tmp_path / "commands.txt"
    script.write_text(f"{before}\n{long_one}\nregs\nback\n")
    command = [sys.executable, "-m", "hvproto", "debug", "--boot", "forever", "-x", str(script), "--batch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == f"(hvproto) {long_one}\n":
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert "interrupted\n" in lines
    assert "(hvproto) back\n" in lines[:-1]


def test_a_batch_ends_with_its_first_error(tmp_path: Path) -> None:
    script = tmp_path / "commands.txt"
    script.write_text("step\nnonsense\nstep\n")
    done = hvproto("--boot", "hello", "-x", str(script), "--batch")
    assert done.returncode == 2
    assert done.stdout.count("(hvproto) step") == 1
    assert "there is no command 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--boot", "no-such-kernel"), ("-x", "no-such-script"), ("--plan", "odd"), ("--ram", "1"), ("--gdb", "x"),
     ("--input", "no-such-file")],
)  # fmt: skip
def test_bad_input_of_the_command(arguments: tuple[str, ...]) -> None:
    done = hvproto(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("hvproto: ")
    assert "Traceback" not in done.stderr
