"""`hvproto run`: a host, the hypervisor and a guest through the whole story."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from hvproto.bundled import DEFAULT_GUEST, DEFAULT_HOST
from hvproto.cli.compare import print_comparison
from hvproto.cli.completion import guests, hosts, plans
from hvproto.cli.console import standard_input
from hvproto.cli.failures import INTERRUPTED
from hvproto.cli.inputs import boot_options, open_disk, open_kernel, parse_ram, require_ram, require_use
from hvproto.cli.interrupts import interruptible
from hvproto.cli.progress import progress_of
from hvproto.cli.recordings import recordings
from hvproto.cli.result import RunResult, printing
from hvproto.cli.several import GuestLines, names_of, say_failures
from hvproto.cli.story import Story
from hvproto.cli.summary import facts_of_the_guests, facts_of_the_host, print_summary
from hvproto.errors import BadInput, HvprotoError, MachineError
from hvproto.events import EventBus
from hvproto.hypervisor.accommodation import Accommodation, accommodate
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.image import Image
from hvproto.machine.ram import parse_size
from hvproto.report.heading import Heading

DEFAULT_GUEST_RAM = "16M"


def run(
    host: Annotated[
        str,
        typer.Option(metavar="FILE", help="The host's kernel, a file or a bundled one's name.", autocompletion=hosts),
    ] = DEFAULT_HOST,
    guest: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A guest's kernel or disk, a file or a bundled one's name; repeatable, for several guests.",
            show_default=DEFAULT_GUEST,
            autocompletion=guests,
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            metavar="PLAN",
            help="Who provides the processor's settings: mirrored, direct or application.",
            autocompletion=plans,
        ),
    ] = "mirrored",
    events: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write each event to this file as a line of JSON.")
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the run as a page of pictures for a browser, in one file (HTML)."),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the run as a trace for ui.perfetto.dev (Chrome's JSON)."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="End after N cycles: bytes of executed code.", show_default="no limit"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stdout but what the guest prints.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell every step in full.")] = False,
    disk: Annotated[
        str | None, typer.Option(metavar="FILE", help="Image of the host's disk.", show_default="the built-in disk")
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory of the whole machine.", show_default="as much as the guests need"),
    ] = None,
    guest_ram: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each guest.")] = DEFAULT_GUEST_RAM,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Count instructions from four events to the guest's handlers and back, under each plan."
        ),
    ] = False,
    append: Annotated[str, typer.Option(metavar="TEXT", help="Command line for multiboot guests.")] = "",
    module: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[=TEXT]", help="Module for multiboot guests, with its command line; repeatable."),
    ] = None,
    gdb: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve GDB there; nothing runs before it says so.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="At the end, one JSON object instead of the story; with --compare, one a line."),
    ] = False,
) -> None:
    """Run a guest kernel on a host's processor, and tell the story.

    Without options: the bundled host, with the bundled guest, under the plan mirrored. The exit status is 0 if all
    went well, the guest's own if it ends with one, 1 if a kernel comes to grief, 2 if the input can't be used. What
    stdin has goes to COM1 of whoever looks for it, the host or the only guest. Several guests share the processor as
    the host's scheduler has it; what ends one of them harms no other, and the exit status is the first one's that isn't
    0. How many there are, and their memory, the host is told on its multiboot command line: "guests=2 memory=64".

    \b
    Examples:
      hvproto run
      hvproto run --plan direct --quiet
      hvproto run --guest hello --verbose
      hvproto run --guest kernel.elf --append "debug" --module initrd.img
      echo ls | hvproto run --guest kernel.elf --quiet
      hvproto run --guest guest --guest guest64 --guest-ram 64M --quiet
      hvproto run --guest kernel.elf --events events.jsonl --limit 100000000
      hvproto run --report report.html --trace trace.json
      hvproto run --json | jq '{status, meaning, reason, relocations}'
      hvproto run --guest kernel.elf --json | jq -j '.guests[0].output'
      hvproto run --compare
      hvproto run --gdb 1234

    \b
    The object of --json:
      status meaning reason error world where   how it ended; the last 3 if badly
      plan cycles events                        events: how many of each kind
      decouplings recouplings exceptions ...    counts, exceptions by route, name
      host                                      path, output, timer_interrupts
      guests                                    of each: name, path, end, status,
                                                reason, error, output, its counts
    Output is a character for each byte, U+0000 to U+00FF. Without a run, for
    bad input, there is no object.
    """
    if compare:
        if guest:
            raise BadInput("--compare has a guest of its own, whose labels say what to count: leave --guest out")
        print_comparison(as_json=as_json)
        return
    if as_json and (verbose or gdb is not None):
        raise BadInput("--json has its object on stdout and nothing else: leave --verbose and --gdb out")
    names = guest or [DEFAULT_GUEST]
    if gdb is not None and len(names) > 1:
        raise BadInput("--gdb is for one guest")
    if gdb is not None and (report or trace):
        raise BadInput("--gdb goes back and forth in time: it makes neither --report nor --trace")
    wanted = Plan.parse(plan)
    wanted.check_runnable()
    needs = accommodate(len(names), parse_size(guest_ram))
    ram_size = needs.ram_size if ram is None else parse_ram(ram)
    if host == DEFAULT_HOST:
        _require_room(needs, ram_size)
    host_image, guest_images = open_kernel(host), [open_kernel(name) for name in names]
    guest_options = boot_options(append, module or [])
    for image in guest_images:
        require_use(image, guest_options, None)
    disk_contents = open_disk(disk)
    require_ram(host_image, ram_size)
    if host == DEFAULT_HOST:  # another one may have other ideas of its guests' memory
        for image in guest_images:
            require_ram(image, parse_size(guest_ram), "--guest-ram", "the guest")
    if gdb is not None:
        from hvproto.cli.gdb import guest_to_stdout, serve_gdb  # the debugger: who doesn't want it needn't wait for it
        from hvproto.debugger.subjects import session_subject

        build = session_subject(
            host_image, guest_images[0], wanted, ram_size=ram_size, disk=disk_contents, limit=limit,
            options=needs.options, guest_options=guest_options,
        )  # fmt: skip
        serve_gdb(build, gdb, guest_to_stdout)
    inputs = [Path(image.path) for image in (host_image, *guest_images)] + ([Path(disk)] if disk else [])
    heading = Heading(wanted.name, Path(host_image.path).stem, names_of(guest_images))
    story = None if quiet or as_json else Story(wanted, host_image, guest_images, verbose=verbose)
    bus = EventBus()
    session = Session(
        host_image, guest_images, wanted, ram_size=ram_size, disk=disk_contents, bus=bus,
        on_host_debug=None if story is None else story.host_console, options=needs.options,
        guest_options=guest_options,
    )  # fmt: skip
    hypervisor = session.hypervisor
    failed: dict[int, HvprotoError] = {}
    progress = progress_of(session.machine.processor, bus, None if story is None else story.console)
    with ExitStack() as files:
        if story is not None:
            tell = story.guest_output
            story.present = lambda: hypervisor.present
            hypervisor.on_print = lambda guest, data: tell(guest.number, data)
        elif as_json:
            pass  # what guests print is in the object
        elif len(guest_images) > 1:
            lines = GuestLines(names_of(guest_images), progress.write)
            files.callback(lines.finish)
            hypervisor.on_print = lambda guest, data: lines.take(guest.number, data)
        else:
            hypervisor.on_print = lambda _guest, data: progress.write(data)
        for subscriber in files.enter_context(recordings(heading, inputs, events=events, report=report, trace=trace)):
            bus.subscribe(subscriber)
        with (
            interruptible(session.machine.processor.engine),
            standard_input(session.machine, hypervisor) as progress.converses,
            progress.running(),
        ):
            try:
                if story is not None:
                    status = _tell(story, session, host_image, limit)
                else:
                    status = _count(session, limit) if as_json else _run(session, limit)
            except HvprotoError as error:
                if len(guest_images) == 1 or error not in hypervisor.failures.values():
                    raise
                failed, status = hypervisor.failures, error.exit_status
    say_failures(names_of(guest_images), failed)
    raise typer.Exit(status)


def _require_room(needs: Accommodation, ram_size: int) -> None:
    """Raises MachineError unless the bundled host has room for guests that it has to be told of."""
    if needs.options.command_line and ram_size < needs.ram_size:
        raise MachineError(
            f"the host with these guests needs a machine with {needs.ram_size >> 20}M, --ram gives it "
            f"{ram_size / (1 << 20):.4g}M; leave --ram out, and it gets what it needs"
        )


def _run(session: Session, limit: int | None) -> int:
    """Run to the end, of the guests' output, too: what they have printed just before a limit isn't lost."""
    try:
        return session.run(limit)
    finally:
        session.hypervisor.print_rest()


def _count(session: Session, limit: int | None) -> int:
    """Run the session, and print what has come of it as JSON, however it ends."""
    result = RunResult(session)
    session.bus.subscribe(result.on_event)
    with printing(result.facts) as end:
        status = _run(session, limit)
        end.update(status=status, reason=result.reason)
    return status


def _tell(story: Story, session: Session, host: Image, limit: int | None) -> int:
    """Run the session with the story on stdout; the summary comes however it ends."""
    session.bus.subscribe(story.on_event)
    story.begin()
    names = names_of(session.hypervisor.images)

    def summarize(status: int) -> None:
        facts = facts_of_the_guests(session.hypervisor, names) + facts_of_the_host(session.machine, host)
        print_summary(story.console, story.counts, facts, status)

    try:
        status = _run(session, limit)
    except HvprotoError as error:
        story.end()
        summarize(error.exit_status)
        raise
    except KeyboardInterrupt:
        story.end()
        summarize(INTERRUPTED)
        raise
    story.end()
    summarize(status)
    return status
