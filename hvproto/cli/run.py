"""`hvproto run`: a host, the hypervisor and a guest through the whole story."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from hvproto.bundled import DEFAULT_GUEST, DEFAULT_HOST
from hvproto.cli.compare import print_comparison
from hvproto.cli.console import standard_input
from hvproto.cli.inputs import open_disk, open_kernel, parse_ram, require_ram
from hvproto.cli.interrupts import interruptible
from hvproto.cli.outputs import events_file, to_stdout
from hvproto.cli.story import Story
from hvproto.cli.summary import facts_of_the_host, print_summary
from hvproto.errors import BadInput, HvprotoError
from hvproto.events import EventBus
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image

DEFAULT_RAM = "64M"
"""As much as the bundled host needs."""


def run(
    host: Annotated[
        str, typer.Option(metavar="FILE", help="The host's kernel, a file or a bundled one's name.")
    ] = DEFAULT_HOST,
    guest: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="The guest's kernel, a file or a bundled one's name.", show_default=DEFAULT_GUEST
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(metavar="PLAN", help="Who provides the processor's settings: mirrored, direct or application."),
    ] = "mirrored",
    events: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write each event to this file as a line of JSON.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="End after N cycles of virtual time.", show_default="no limit"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stdout but what the guest prints.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell every step in full.")] = False,
    disk: Annotated[
        str | None, typer.Option(metavar="FILE", help="Image of the host's disk.", show_default="the built-in disk")
    ] = None,
    ram: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the whole machine.")] = DEFAULT_RAM,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Count instructions from four events to the guest's handlers and back, under each plan."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --compare: a JSON object a line, no table.")] = False,
) -> None:
    """Run a guest kernel on a host's processor, and tell the story.

    Without options: the bundled host, with the bundled guest, under the plan mirrored. The exit status is 0 if all
    went well, the guest's own if it ends with one, 1 if a kernel comes to grief, 2 if the input can't be used. A host
    that looks for input on COM1 gets what stdin has.

    \b
    Examples:
      hvproto run
      hvproto run --plan direct --quiet
      hvproto run --guest hello --verbose
      hvproto run --guest kernel.elf --events events.jsonl --limit 100000000
      hvproto run --compare
    """
    if compare:
        if guest:
            raise BadInput("--compare has a guest of its own, whose labels say what to count: leave --guest out")
        print_comparison(as_json=as_json)
        return
    if as_json:
        raise BadInput("--json is the form of --compare; for a run as JSON there is --events")
    names = guest or [DEFAULT_GUEST]
    if len(names) > 1:
        raise BadInput(f"one guest at a time for now: --guest was given {len(names)} times")
    wanted = Plan.parse(plan)
    wanted.check_runnable()
    ram_size = parse_ram(ram)
    host_image, guest_image = open_kernel(host), open_kernel(names[0])
    disk_contents = open_disk(disk)
    require_ram(host_image, ram_size)
    story = None if quiet else Story(wanted, host_image, guest_image, verbose=verbose)
    bus = EventBus()
    session = Session(
        host_image, [guest_image], wanted, ram_size=ram_size, disk=disk_contents, bus=bus,
        on_guest_output=to_stdout if story is None else story.guest_output,
        on_host_debug=None if story is None else story.host_console,
    )  # fmt: skip
    with ExitStack() as files:
        if events is not None:
            inputs = [Path(image.path) for image in (host_image, guest_image)] + ([Path(disk)] if disk else [])
            bus.subscribe(files.enter_context(events_file(events, inputs)))
        with interruptible(session.machine.processor.engine), standard_input(session.machine):
            status = session.run(limit) if story is None else _tell(story, session, host_image, limit)
    raise typer.Exit(status)


def _tell(story: Story, session: Session, host: Image, limit: int | None) -> int:
    """Run the session with the story on stdout; the summary comes however it ends."""
    session.bus.subscribe(story.on_event)
    story.begin()
    try:
        status = session.run(limit)
    except HvprotoError as error:
        story.end()
        print_summary(story.console, story.counts, facts_of_the_host(session.machine, host), error.exit_status)
        raise
    story.end()
    print_summary(story.console, story.counts, facts_of_the_host(session.machine, host), status)
    return status
