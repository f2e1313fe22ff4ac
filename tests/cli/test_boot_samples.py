"""The terminal of `guests/boot`: keys, timer, what the loader says, power-off; here and on QEMU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hvproto.errors import LimitReached
from hvproto.images.multiboot_info import BootOptions, Module
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.machine import Machine
from tests.modes.machines import QEMU, available
from tests.support.command import COMMAND, environment, hvproto, write
from tests.support.kernels import word
from tests.support.samples import CYCLES, FAILED, RAM, TERMINAL, qemu, sample


def terminal(engine: str, command_line: str = "", modules: tuple[Module, ...] = ()) -> Machine:
    machine = Machine(RAM, engine=engine)
    machine.load(sample(TERMINAL), BootOptions(command_line, modules))
    return machine


def test_keys_are_shown_and_carried_out(engine: str) -> None:
    machine = terminal(engine)
    machine.type("echo hi\n")  # before it even listens
    machine.run_until("\nhi", CYCLES)
    machine.type('ehc\b\bcho ("Hi", 2 ~ THERE!)\n')
    machine.run_until('\n("Hi", 2 ~ THERE!)', CYCLES)
    machine.run_until("> ", CYCLES)
    lines = machine.screen.lines[:6]
    assert lines[1:] == ["> echo hi", "hi", '> echo ("Hi", 2 ~ THERE!)', '("Hi", 2 ~ THERE!)', ">"]
    machine.type("x\b\bfoo")
    machine.run_until("foo", CYCLES)
    assert machine.screen.cursor == (5, 5)
    assert machine.screen.lines[5] == "> foo"


def test_the_timer_ticks_a_hundred_times_a_second(engine: str) -> None:
    machine = terminal(engine)
    machine.run_until("> ", CYCLES)
    before = word(machine, "ticks")
    with pytest.raises(LimitReached):
        machine.run(machine.processor.now + 2 * CYCLES_PER_SECOND)
    assert word(machine, "ticks") - before in (199, 200)
    machine.type("ticks\necho now\n")
    machine.run_until("\nnow", CYCLES)
    told = re.search(rb"\n(\d+) ticks\n", machine.serial_output)
    assert told and 199 <= int(told[1]) - before < 205


def test_what_the_loader_says(engine: str) -> None:
    modules = (Module("one", b"xyz", "first"), Module("two", bytes(5000), ""))
    machine = terminal(engine, "quiet run=mem;args;mods;off", modules)
    assert machine.run(CYCLES) == 0
    _, *ranges, args, count, one, two, off = machine.serial_output.decode().splitlines()
    assert ranges[0].startswith("0x0000000000000000 to ") and ranges[0].endswith(", available")
    assert f"0x0000000000100000 to {RAM - 1:#018x}, available" in ranges
    assert any(", kind 2" in line for line in ranges)
    assert (args, count, off) == ("quiet run=mem;args;mods;off", "modules: 2", "off")
    at, text = one.split(", ")
    assert text == "3 bytes: first" and bytes(machine.ram.view[int(at, 16) : int(at, 16) + 3]) == b"xyz"
    assert two.split(", ")[1] == "5000 bytes: "


def test_off_is_by_the_acpi_tables(engine: str) -> None:
    machine = terminal(engine, "run=off")
    power = sample(TERMINAL).constants["QEMU_POWER"]
    written: list[int] = []
    port_write = machine.board.ports.write

    def write_port(port: int, size: int, value: int) -> None:
        written.append(port)
        port_write(port, size, value)

    machine.board.ports.write = write_port  # type: ignore[method-assign]
    assert machine.run(CYCLES) == 0
    assert 0xB004 in written and power not in written


def test_characters_on_com1_are_keys_too(engine: str) -> None:
    machine = terminal(engine)
    machine.run_until("> ", CYCLES)
    machine.feed(b"echo serial\x7f\x08es\rfoo bar\r\r")
    machine.run_until("unknown command: foo bar\n> \n> ", CYCLES)
    assert machine.screen.lines[1:6] == ["> echo series", "series", "> foo bar", "unknown command: foo bar", ">"]


def test_a_full_screen_moves_up(engine: str) -> None:
    machine = terminal(engine, "run=" + ";".join(f"echo line {n}" for n in range(40)))
    machine.run_until("> ", CYCLES)
    assert machine.screen.lines == [f"line {n}" for n in range(16, 40)] + [">"]
    assert machine.screen.cursor == (24, 2)


def test_an_exception_is_told(engine: str) -> None:
    machine = terminal(engine)
    machine.run_until("> ", CYCLES)
    machine.ram.view[0x9000:0x9002] = b"\x0f\x0b"  # UD2
    machine.processor.eip = 0x9000
    assert machine.run(machine.processor.now + CYCLES) == FAILED
    assert b"unexpected interrupt, vector 6, error code 0x00000000, at 0x00009000, CR2 " in machine.serial_output


def test_the_terminal_from_the_command_line(engine: str, tmp_path: Path) -> None:
    module = write(tmp_path, "data.bin", b"1234")
    ended = hvproto(
        "boot", TERMINAL, "--append", "run=echo hello;mods;args;off", "--module", f"{module}=four bytes",
        HVPROTO_ENGINE=engine,
    )  # fmt: skip
    assert ended.status == 0 and ended.stderr == ""
    _, hello, mods, four, args, off = ended.text.splitlines()
    assert (hello, mods, args, off) == ("hello", "modules: 1", "run=echo hello;mods;args;off", "off")
    assert four.endswith(", 4 bytes: four bytes")


@pytest.mark.parametrize("options", [(), ("--keyboard",)])
def test_a_session_from_standard_input(options: tuple[str, ...]) -> None:
    command = [*COMMAND, "boot", str(TERMINAL), *options]
    typed = b"echo Hello, (you)!\nargs\noff\n"
    ended = subprocess.run(command, input=typed, capture_output=True, timeout=60, env=environment(), check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.decode().splitlines()[1:] == [
        "> echo Hello, (you)!",
        "Hello, (you)!",
        "> args",
        "",
        "> off",
        "off",
    ]


@pytest.mark.skipif(not available(QEMU), reason="QEMU is not installed")
def test_the_terminal_on_qemu(tmp_path: Path) -> None:
    status, printed = qemu(tmp_path, TERMINAL, "-append", "run=echo hello;mods;foo;off")
    assert (status, printed.splitlines()[1:]) == (0, ["hello", "modules: 0", "unknown command: foo", "off"])
