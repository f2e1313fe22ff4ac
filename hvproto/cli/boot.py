"""`hvproto boot`: a kernel alone on the bare machine, the control experiment to `hvproto run`."""

from __future__ import annotations

from typing import Annotated

import typer

from hvproto.cli.completion import guests
from hvproto.cli.console import standard_input
from hvproto.cli.devices import device_report
from hvproto.cli.inputs import boot_options, open_disks, open_kernel, parse_ram, require_ram, require_use
from hvproto.cli.interrupts import interruptible
from hvproto.cli.progress import progress_of
from hvproto.cli.result import boot_facts, printing
from hvproto.errors import BadInput
from hvproto.machine.disk_image import read_disk
from hvproto.machine.machine import Machine

DEFAULT_RAM = "16M"
"""As much as the bundled host gives to a guest."""


def boot(
    context: typer.Context,
    kernel: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A kernel: assembly, ELF, multiboot or flat; a bootable disk image; or a bundled kernel's name.",
            show_default="the disk boots",
            autocompletion=guests,
        ),
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Image of a disk; the second one is the slave.", show_default="built in"),
    ] = None,
    write_disk: Annotated[
        bool, typer.Option("--write-disk", help="Write to the disk image files, which otherwise never change.")
    ] = False,
    append: Annotated[str, typer.Option(metavar="TEXT", help="Command line for a multiboot kernel.")] = "",
    module: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[=TEXT]", help="Module for a multiboot kernel, with its command line; repeatable."),
    ] = None,
    ram: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the machine, such as 64M.")] = DEFAULT_RAM,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="End after N cycles: bytes of executed code.", show_default="no limit"),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where a flat image is loaded and entered.", show_default="0x100000"),
    ] = None,
    keyboard: Annotated[
        bool, typer.Option("--keyboard", help="Type standard input on the keyboard instead of sending it to COM1.")
    ] = False,
    gdb: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve GDB there; nothing runs before it says so.")
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="At the end, list accesses to absent devices and wrong uses on stderr.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="At the end, one JSON object on stdout; what the kernel prints is in it.")
    ] = False,
) -> None:
    """Boot a kernel or a disk alone on the bare machine, without any hypervisor.

    A file whose first sector ends in 55 AA is a disk: the firmware enters its boot sector in real mode and serves
    INT 10h, 13h, 15h and so on. Without FILE the first --disk boots.

    What stdin has, a file, a pipe or a terminal, the kernel gets by COM1 when it looks for it; at a terminal each key
    goes there at once, but for Ctrl-C and Ctrl-Z. A kernel that waits for it in HLT waits until stdin ends.

    On stdout is what the kernel prints on COM1 and on port 0xe9, and nothing else. The exit status is 0 after a
    clean halt, 2*value+1 after a write of value to the debug exit port 0xf4, and 1 when the kernel comes to grief.

    \b
    Examples:
      hvproto boot guest                     a bundled kernel
      hvproto boot kernel.elf --ram 64M --append "debug" --module initrd.img
      hvproto boot system.img                a disk image; or with --disk
      hvproto boot loader.bin --at 0x7c00 --limit 1000000
      echo ls | hvproto boot kernel.elf
      hvproto boot kernel.elf --json | jq '{status, meaning, reason, cycles}'

    \b
    The object of --json:
      status meaning reason error world where   how it ended; the last 3 if badly
      kernel cycles timer_interrupts
      output serial debug_console screen        all of what was printed, COM1's,
                                                port 0xe9's; the VGA's text
      unclaimed complaints                      what --devices lists
    Output is a character for each byte, U+0000 to U+00FF. Without a run, for
    bad input, there is no object.
    """
    if kernel is None and not disk:
        raise typer.BadParameter("give a kernel, a disk image or --disk", context)
    ram_size = parse_ram(ram)
    image = None if kernel is None else open_kernel(kernel, at)
    options = boot_options(append, module or [])
    require_use(image, options, at)
    if as_json and gdb is not None:
        raise BadInput("--json has its object on stdout and nothing else: leave --gdb out")
    if gdb is not None and (write_disk or image is None):
        raise BadInput("--gdb goes back and forth in time: it needs FILE, and writes to no disk image")
    disks = open_disks(image, disk or [], write=write_disk)
    if image is not None:
        require_ram(image, ram_size)
    if gdb is not None and image is not None:
        from hvproto.cli.gdb import guest_to_stdout, serve_gdb  # the debugger: who doesn't want it needn't wait for it
        from hvproto.debugger.subjects import machine_subject

        others = tuple(read_disk(name) for name in disk or [])
        build = machine_subject(image, ram_size=ram_size, disks=others, options=options, limit=limit)
        serve_gdb(build, gdb, guest_to_stdout)
    first, second = [*disks, None, None][:2]

    output = bytearray()

    def printed(byte: int) -> None:
        if as_json:
            output.append(byte)
        else:
            progress.write(bytes((byte,)))

    machine = Machine(ram_size, first, second_disk=second, on_serial=printed, on_debug=printed)
    progress = progress_of(machine.processor)
    if image is None or image.kind == "disk":
        machine.boot_disk(image)
    else:
        machine.load(image, options)
    with (
        device_report(machine, wanted=devices),
        interruptible(machine.processor.engine),
        standard_input(machine, keyboard=keyboard) as progress.converses,
        progress.running(),
    ):
        if as_json:
            with printing(lambda: boot_facts(machine, None if image is None else image.path, output)) as end:
                status = machine.run(limit)
                end.update(status=status, reason=machine.ending)
        else:
            status = machine.run(limit)
    raise typer.Exit(status)
