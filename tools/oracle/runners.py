"""The machines that the image runs on, one class each, and how to go on when a case ends a machine."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from hvproto.addresses import GPA
from hvproto.errors import HvprotoError
from hvproto.images.image import Image, Segment
from tools.oracle import layout as at
from tools.oracle import rom
from tools.oracle.case import Case
from tools.oracle.image import build, kernel, starting_at
from tools.oracle.report import NOT_REACHED
from tools.oracle.tables import Mode

RAM = 32 << 20
SECONDS = 60
"""How long an external machine may take for one image."""
CYCLES = 4_000_000_000
BATCH = 2000
"""How many cases go into one image."""
DIED = "died"


class Runner(Protocol):
    """A machine that can run an image and gives the lines that it wrote to port 0xe9."""

    name: str
    restarts: int
    """How often it may be started again behind a case that it didn't survive."""
    at_once: int
    """How many of it may run at a time."""

    def available(self, mode: Mode) -> str | None:
        """None, or the reason why not."""

    def run(self, image: bytes, mode: Mode) -> list[str]: ...


class Hvproto:
    """This project's own machine, with one of its engines."""

    restarts = 1000
    at_once = 1

    def __init__(self, engine: str, *, returns: bool = False) -> None:
        """``returns``: every IRET is the processor's own, not the engine's."""
        self._engine = engine
        self._returns = returns
        self.name = f"{engine}+iret" if returns else engine

    def available(self, mode: Mode) -> str | None:
        from hvproto.processor.private_layout import self_check  # late: the oracles can do without

        return self_check() if self._engine == "native" else None

    def run(self, image: bytes, mode: Mode) -> list[str]:
        from hvproto.machine.machine import Machine

        machine = Machine(RAM, engine=self._engine)
        segment = Segment(GPA(at.KERNEL), image, len(image))
        if self._returns:
            machine.processor.replace_returns()
        machine.load(Image("oracle", "flat", (segment,), kernel(mode).entry))
        try:
            machine.run(CYCLES)
        except HvprotoError as error:
            machine.debug_output.extend(f"{DIED} {error}".split("\n")[0].encode() + b"\n")
        return machine.debug_output.decode("latin-1").splitlines()


class Qemu:
    """QEMU's TCG, which loads the image by its multiboot header."""

    name = "qemu"
    restarts = 8
    at_once = 2
    _PROGRAMS = ("qemu-system-x86_64", "qemu-system-i386")

    def available(self, mode: Mode) -> str | None:
        return None if self._program() else "qemu-system-x86 is not installed"

    def _program(self) -> str | None:
        return next((found for name in self._PROGRAMS if (found := shutil.which(name))), None)

    def run(self, image: bytes, mode: Mode) -> list[str]:
        with tempfile.TemporaryDirectory() as directory:
            file, output = Path(directory, "image"), Path(directory, "output")
            file.write_bytes(image)
            output.touch()
            command = [
                self._program() or "",
                "-kernel",
                str(file),
                "-m",
                str(RAM >> 20),
                "-accel",
                "tcg",
                "-cpu",
                "max,vendor=GenuineIntel",
            ]
            command += ["-display", "none", "-monitor", "none", "-serial", "none", "-net", "none", "-no-reboot"]
            command += ["-debugcon", f"file:{output}", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
            message = _execute(command, directory)
            return [*output.read_text("latin-1").splitlines(), *message]


NO_PORT = "could not bind any port"
PORT_ATTEMPTS = 8


class Bochs:
    """Bochs without BIOS and display: the image lies in a ROM of ours, which copies it to RAM and enters it."""

    name = "bochs"
    restarts = 8
    at_once = 2

    def available(self, mode: Mode) -> str | None:
        return None if shutil.which("bochs") else "bochs is not installed"

    def run(self, image: bytes, mode: Mode) -> list[str]:
        for attempt in range(PORT_ATTEMPTS):
            lines = self._run_once(image, mode)
            if not any(NO_PORT in line for line in lines):
                break
            time.sleep(0.2 * (attempt + 1))  # its display listens on one of 50 ports, which others may have just now
        return lines

    def _run_once(self, image: bytes, mode: Mode) -> list[str]:
        with tempfile.TemporaryDirectory() as directory:
            where = Path(directory)
            content = rom.system_rom(image, at.KERNEL, kernel(mode).entry)
            (where / "rom").write_bytes(content)
            (where / "vga").write_bytes(rom.empty_option_rom())
            (where / "debugger").write_text("c\nq\n", "ascii")
            (where / "bochsrc").write_text(_BOCHSRC.format(megabytes=RAM >> 20, rom=(1 << 32) - len(content)), "ascii")
            with open(where / "output", "wb") as output:
                command = ["bochs", "-q", "-f", "bochsrc", "-rc", "debugger"]
                message = _execute(command, directory, output.fileno())
            lines = (where / "output").read_text("latin-1").splitlines()
            log = (where / "log").read_text("latin-1") if (where / "log").exists() else ""
            if "lines" in message or not any(line == "end" for line in lines):
                panics = [line for line in log.splitlines() if "p[" in line or "3rd" in line]
                message += [f"{DIED} {panics[-1] if panics else 'no reason given'}"]
            return [*lines, *message]


_BOCHSRC = """\
display_library: rfb, options="timeout=0"
romimage: file=rom, address={rom:#x}
vgaromimage: file=vga
megs: {megabytes}
cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0
clock: sync=none
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0, mode=none
plugin_ctrl: unmapped=1, speaker=0
port_e9_hack: enabled=1
log: log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
"""


def _execute(command: list[str], directory: str, output: int = subprocess.DEVNULL) -> list[str]:
    """Runs a machine to its end; the line to add if it had to be stopped."""
    try:
        subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"{DIED} no end within {SECONDS} s"]
    return []


MACHINES: dict[str, Runner] = {
    runner.name: runner
    for runner in (
        Bochs(),
        Qemu(),
        Hvproto("native"),
        Hvproto("portable"),
        Hvproto("native", returns=True),
        Hvproto("portable", returns=True),
    )
}


def batches(cases: Sequence[Case]) -> list[Sequence[Case]]:
    """The cases in groups that fit into one image each."""
    return [cases[start : start + BATCH] for start in range(0, len(cases), BATCH)]


def run_cases(runner: Runner, cases: Sequence[Case], mode: Mode) -> list[str]:
    """The line of each case; a case that ended the machine has one that begins with ``died``.

    The machine is started again behind such a case, at most ``runner.restarts`` times; what isn't reached has the line
    "not reached".
    """
    tried = [case for case in cases if runner.name not in case.lost_on]
    images = [(build(batch, mode), len(batch)) for batch in batches(tried)]
    if runner.at_once == 1:
        found = [_lines(runner, image, count, mode) for image, count in images]
    else:
        with ThreadPoolExecutor(runner.at_once) as pool:
            found = list(pool.map(lambda pair: _lines(runner, pair[0], pair[1], mode), images))
    lines = iter([line for batch in found for line in batch])
    return [f"{DIED} as it is known to" if runner.name in case.lost_on else next(lines) for case in cases]


def _lines(runner: Runner, image: bytes, count: int, mode: Mode) -> list[str]:
    lines: list[str] = []
    for _ in range(runner.restarts + 1):
        output = runner.run(starting_at(image, len(lines), mode), mode)
        for line in output:
            if len(lines) < count and line == "lost":
                lines.append(line)
            elif len(lines) < count and line[:4] == f"{len(lines) & 0xFFFF:04x}":
                lines.append(line[5:])
        if "end" in output or len(lines) >= count:
            break
        reasons = [line for line in output if line.startswith(DIED)]
        lines.append(reasons[-1] if reasons else f"{DIED} without a word")
    return lines + [NOT_REACHED] * (count - len(lines))
