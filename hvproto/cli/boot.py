"""`hvproto boot`: a kernel alone on the bare machine, the control experiment to `hvproto run`."""

from __future__ import annotations

from typing import Annotated

import typer

from hvproto.cli.inputs import open_disk, open_kernel, parse_ram, require_ram
from hvproto.cli.interrupts import interruptible
from hvproto.cli.outputs import to_stdout
from hvproto.machine.machine import Machine

DEFAULT_RAM = "16M"
"""As much as the bundled host gives to a guest."""


def boot(
    kernel: Annotated[
        str, typer.Argument(metavar="FILE", help="A kernel: assembly, ELF, multiboot or flat; or a bundled one's name.")
    ],
    disk: Annotated[
        str | None, typer.Option(metavar="FILE", help="Image of its disk.", show_default="the built-in disk")
    ] = None,
    ram: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the machine, such as 64M.")] = DEFAULT_RAM,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="End after N cycles of virtual time.", show_default="no limit"),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where a flat image is loaded and entered.", show_default="0x100000"),
    ] = None,
) -> None:
    """Boot a kernel alone on the bare machine, without any hypervisor.

    On stdout is what the kernel prints on COM1 and on port 0xe9, and nothing else. The exit status is 0 after a
    clean halt, 2*value+1 after a write of value to the debug exit port 0xf4, and 1 when the kernel comes to grief.

    \b
    Examples:
      hvproto boot guest                     a bundled kernel
      hvproto boot kernel.elf --ram 64M
      hvproto boot loader.bin --at 0x7c00 --limit 1000000
    """
    ram_size = parse_ram(ram)
    image = open_kernel(kernel, at)
    disk_contents = open_disk(disk)
    require_ram(image, ram_size)
    machine = Machine(ram_size, disk_contents, on_serial=to_stdout, on_debug=to_stdout)
    machine.load(image)
    with interruptible(machine.processor.engine):
        status = machine.run(limit)
    raise typer.Exit(status)
