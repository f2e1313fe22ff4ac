"""What `hvproto debug` does: the run that is wanted, and the conversation about it.

Only that command loads this: the debugger behind it is a tenth of what all other commands load.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hvproto.cli.gdb import guest_to_stdout, serve_gdb
from hvproto.cli.inputs import boot_options, open_disk, open_kernel, parse_ram, require_ram
from hvproto.debugger.repl.console import Console, typed_lines
from hvproto.debugger.repl.present import told
from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.subjects import machine_subject, session_subject
from hvproto.errors import BadInput
from hvproto.hypervisor.plan import Plan


def step_through(build: Build, scripts: list[str], gdb: str | None, *, batch: bool) -> None:
    """The scripts' lines, then what is typed; or a GDB server at the place ``gdb``. Raises BadInput, and Exit then."""
    if gdb is not None:
        serve_gdb(build, gdb, guest_to_stdout, scripts)
    output = OutputLines()
    with DebugSession(build, output) as session:
        console = Console(session)
        say(told(session, session.stop))
        console.run_lines(scripts, say, echoes=True, strict=batch)
        if not batch and not console.done:
            console.run_lines(typed_lines(), say, echoes=not sys.stdin.isatty(), strict=False)
        output.end()


def make_build(
    host: str,
    guest: str,
    plan: str,
    boot: str | None,
    limit: int | None,
    disk: str | None,
    ram: str | None,
    typed: str | None,
) -> Build:
    """What these options say is to be run. Raises BadInput."""
    contents = _contents(typed)
    if boot is not None:
        image = open_kernel(boot)
        size = parse_ram(ram or "16M")
        require_ram(image, size)
        other = open_disk(disk)
        disks = () if other is None else (other,)
        return machine_subject(
            image, ram_size=size, disks=disks, options=boot_options("", []), limit=limit, typed=contents
        )
    wanted = Plan.parse(plan)
    wanted.check_runnable()
    size = parse_ram(ram or "64M")
    host_image, guest_image = open_kernel(host), open_kernel(guest)
    require_ram(host_image, size)
    return session_subject(
        host_image, guest_image, wanted, ram_size=size, disk=open_disk(disk), limit=limit, typed=contents
    )


def _contents(name: str | None) -> bytes:
    if name is None:
        return b""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BadInput(f"{name}: {error.strerror or error}") from None


def say(text: str) -> None:
    """A line on stdout, at once."""
    print(text, flush=True)


class OutputLines:
    """Shows what a kernel prints, each whole line with its owner before it; the rest of one at the end."""

    def __init__(self) -> None:
        self._begun: dict[str, bytes] = {}

    def __call__(self, whose: str, data: bytes) -> None:
        *lines, self._begun[whose] = (self._begun.get(whose, b"") + data).split(b"\n")
        for line in lines:
            self._show(whose, line)

    def end(self) -> None:
        for whose, line in self._begun.items():
            if line:
                self._show(whose, line)

    @staticmethod
    def _show(whose: str, line: bytes) -> None:
        say(f"{whose} prints: {line.decode('latin-1').rstrip()}")
