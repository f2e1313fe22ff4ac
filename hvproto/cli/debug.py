"""`hvproto debug`: step through a run, forwards and backwards, inside a switch as well."""

from __future__ import annotations

from typing import Annotated

import typer

from hvproto.bundled import DEFAULT_GUEST, DEFAULT_HOST
from hvproto.cli.completion import guests, hosts, plans
from hvproto.errors import BadInput


def debug(
    host: Annotated[
        str,
        typer.Option(metavar="FILE", help="The host's kernel, a file or a bundled one's name.", autocompletion=hosts),
    ] = DEFAULT_HOST,
    guest: Annotated[
        str,
        typer.Option(metavar="FILE", help="The guest's kernel, a file or a bundled one's name.", autocompletion=guests),
    ] = DEFAULT_GUEST,
    plan: Annotated[str, typer.Option(metavar="PLAN", help="mirrored or direct.", autocompletion=plans)] = "mirrored",
    boot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead: a kernel or disk alone on the bare machine.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The run ends after N cycles: bytes of code.", show_default="no limit"),
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
    relocate: Annotated[
        str,
        typer.Option(metavar="SCHEDULE", help='Move the region: "every N", "random N" or "at EXIT=ADDRESS,...".'),
    ] = "never",
    seed: Annotated[int, typer.Option(metavar="N", help="Of a random schedule.")] = 1,
    handler: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py:NAME", help="Ask this function about each exit of the guest; repeatable."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="FILE.py:NAME", help="This class says where the region goes.")
    ] = None,
    tui: Annotated[bool, typer.Option("--tui", help="Full screen: code, registers, settings, timeline ...")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="End after the scripts; the first error ends it.")] = False,
) -> None:
    """Step through a run: host, hypervisor and guest, forwards and backwards, setting by setting inside a switch.

    Commands come from scripts, then from standard input, a terminal or a pipe; "help" lists them. With --gdb, a gdb
    takes turns with them, and has the run to itself when they have ended. The guest's own output is shown as it comes.
    The exit status is 0, or 2 if a batch fails, or the run's if it ended with gdb alone.

    \b
    Examples:
      hvproto debug
      hvproto debug --tui
      hvproto debug --tui --gdb 1234         gdb at another terminal drives the same run
      hvproto debug --plan direct -x commands.txt --batch
      hvproto debug --boot kernel.elf
      echo "step setting 12" | hvproto debug
      hvproto debug --guest kernel.asm --relocate "every 3" --handler ideas.py:firewall
    """
    from hvproto.cli.stepping import full_screen, make_build, make_influence, step_through
    from hvproto.debugger.gdb.server import parse_endpoint
    from hvproto.debugger.repl.console import script_lines

    scripts = [line for path in script or [] for line in script_lines(path)]
    if tui and batch:
        raise BadInput("--tui is for a person: leave --batch away")
    endpoint = None if gdb is None else parse_endpoint(gdb)
    start_tui = full_screen() if tui else None
    influence = make_influence(plan, boot, relocate, seed, handler or [], policy)
    build = make_build(host, guest, plan, boot, limit, disk, ram, typed, influence)
    if start_tui is not None:
        start_tui(build, scripts, endpoint)
        return
    step_through(build, scripts, endpoint, batch=batch)
