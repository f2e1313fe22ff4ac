"""What `hvproto debug` does: the run that is wanted, and the conversation about it.

Only that command loads this: the debugger behind it is a tenth of what all other commands load.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from hvproto.campaign.code import Code
from hvproto.cli.inputs import boot_options, open_disk, open_kernel, parse_ram, require_ram
from hvproto.debugger.gdb.beside import Beside
from hvproto.debugger.gdb.server import GdbServer
from hvproto.debugger.repl.console import Console
from hvproto.debugger.repl.present import told
from hvproto.debugger.repl.typed import Nobody, typed_lines
from hvproto.debugger.session import DebugSession
from hvproto.debugger.subject import Build
from hvproto.debugger.subjects import Influence, machine_subject, no_influence, session_subject
from hvproto.errors import BadInput
from hvproto.hypervisor.exit_view import Handler
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import DEFAULT_POLICY, RelocationPolicy
from hvproto.testing.relocate import Never, Relocator, parse_schedule


def step_through(build: Build, scripts: list[str], endpoint: tuple[str, int] | None, *, batch: bool) -> None:
    """The scripts' lines, then what is typed, with a GDB server at an endpoint beside it.

    Where nobody types, or no longer, and hasn't quit, GDB has the session to itself. Raises BadInput, and then Exit.
    """
    output = OutputLines()
    with DebugSession(build, output) as session, ExitStack() as closing:
        console = Console(session)
        server = None if endpoint is None else closing.enter_context(_serving(console, endpoint))
        say(told(session, session.stop))
        console.run_lines(scripts, say, echoes=True, strict=batch)
        types = not batch and _may_type()
        if types and not console.done:
            visitors = Nobody() if server is None else Beside(server, session, say)
            console.run_lines(typed_lines(visitors), say, echoes=not sys.stdin.isatty(), strict=False)
        if server is not None and not console.done and not (types and sys.stdin.isatty()):
            server.serve()
            output.end()
            raise typer.Exit(session.stop.status or 0)
        output.end()


@contextmanager
def _serving(console: Console, endpoint: tuple[str, int]) -> Iterator[GdbServer]:
    server = GdbServer(console, endpoint)
    host, port = server.address
    print(f"waiting for gdb: target remote {host}:{port}", file=sys.stderr, flush=True)
    try:
        yield server
    finally:
        server.close()


def _may_type() -> bool:
    """Whether standard input is there to be read: not a terminal of which we are in the background."""
    try:
        return not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


def full_screen() -> Callable[[Build, list[str], tuple[str, int] | None], None]:
    """What shows a run on the full screen. Raises BadInput if Textual isn't installed."""
    try:
        import textual  # noqa: F401 - an error in our own modules is another matter
    except ImportError:
        raise BadInput("--tui needs Textual: pip install 'hvproto[tui]'") from None
    from hvproto.debugger.tui.run import run_tui

    return run_tui


def make_build(
    host: str,
    guest: str,
    plan: str,
    boot: str | None,
    limit: int | None,
    disk: str | None,
    ram: str | None,
    typed: str | None,
    influence: Influence,
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
        host_image, guest_image, wanted, ram_size=size, disk=open_disk(disk), limit=limit, typed=contents,
        influence=influence,
    )  # fmt: skip


def make_influence(
    plan: str, boot: str | None, relocate: str, seed: int, handlers: list[str], policy: str | None
) -> Influence:
    """What has a say in the run besides its kernels. Raises BadInput for what there is nothing to influence by."""
    codes, chosen = [Code.read(place) for place in handlers], None if policy is None else Code.read(policy)
    moves = not isinstance(parse_schedule(relocate), Never)
    if not (codes or chosen or moves):
        return no_influence
    wanted = Plan.parse(plan)
    if boot is not None or wanted.guest_at_ring0 or wanted.guest_in_process:
        raise BadInput(
            "--relocate, --handler and --policy are for a guest that the hypervisor has a region in: mirrored"
        )

    def influence() -> tuple[RelocationPolicy, list[Handler]]:
        first = [Relocator(parse_schedule(relocate, seed))] if moves else []
        return chosen.make()() if chosen else DEFAULT_POLICY, [*first, *(code.make() for code in codes)]

    return influence


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
