"""`hvproto debug`: step through a run, forwards and backwards, inside a switch as well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hvproto.bundled import DEFAULT_GUEST, DEFAULT_HOST
from hvproto.cli.gdb import guest_to_stdout, serve_gdb
from hvproto.cli.inputs import boot_options, open_disk, open_kernel, parse_ram, require_ram
from hvproto.debugger.repl.console import Console, script_lines, typed_lines
from hvproto.debugger.repl.present import told
from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.subjects import machine_subject, session_subject
from hvproto.errors import BadInput
from hvproto.hypervisor.plan import Plan


def debug(
    host: Annotated[
        str, typer.Option(metavar="FILE", help="The host's kernel, a file or a bundled one's name.")
    ] = DEFAULT_HOST,
    guest: Annotated[
        str, typer.Option(metavar="FILE", help="The guest's kernel, a file or a bundled one's name.")
    ] = DEFAULT_GUEST,
    plan: Annotated[str, typer.Option(metavar="PLAN", help="mirrored or direct.")] = "mirrored",
    boot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead: a kernel or disk alone on the bare machine.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The run ends after N cycles.", show_default="no limit")
    ] = None,
    disk: Annotated[
        str | None, typer.Option(metavar="FILE", help="Image of the machine's disk.", show_default="built in")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory.", show_default="64M, or 16M with --boot")
    ] = None,
    typed: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="What COM1 of the machine gets as input.")
    ] = None,
    script: Annotated[
        list[str] | None, typer.Option("-x", metavar="SCRIPT", help="Execute the commands in this file; repeatable.")
    ] = None,
    gdb: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve GDB there; its monitor command knows all commands.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="End after the scripts; the first error ends it.")] = False,
) -> None:
    """Step through a run: host, hypervisor and guest, forwards and backwards, setting by setting inside a switch.

    Commands come from scripts, then from standard input, a terminal or a pipe; "help" lists them. The guest's own
    output is shown as it comes. The exit status is 0, or 2 if a batch fails.

    \b
    Examples:
      hvproto debug
      hvproto debug --plan direct -x commands.txt --batch
      hvproto debug --boot kernel.elf
      echo "step setting 12" | hvproto debug
    """
    scripts = [line for path in script or [] for line in script_lines(path)]
    build = make_build(host, guest, plan, boot, limit, disk, ram, typed)
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
