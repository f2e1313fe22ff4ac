"""The command `hvproto` and its sub-commands."""

from __future__ import annotations

from typing import Annotated

import typer

from hvproto import __version__
from hvproto.cli.bench import bench
from hvproto.cli.boot import boot
from hvproto.cli.campaign import campaign
from hvproto.cli.claims import claims
from hvproto.cli.debug import debug
from hvproto.cli.failures import reported
from hvproto.cli.guests import guests
from hvproto.cli.run import run

app = typer.Typer(
    name="hvproto",
    no_args_is_help=True,
    # Plain help and plain messages: the same on a terminal, in a pipe and in a log.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hvproto {__version__}")
        raise typer.Exit


@app.callback()
def hvproto(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Prototype a hypervisor in Python: real x86 host and guest kernels on one processor.

    The host operating system is decoupled from its own processor, setting by setting, a guest kernel gets it, and
    the host is recoupled. Begin with "hvproto run".

    \b
    Exit status, of every command:
      0    all went well; boot and run: what the kernel itself ends with,
           2*value+1 for value at the debug exit port
      1    a kernel came to grief, a claim or a bar doesn't hold
      2    the input can't be used
      3    the engine can't be used as asked
      130  ended by Ctrl-C: what was done so far is kept
      141  whoever read our output has gone

    NO_COLOR=1 leaves colours out. Progress is shown on a terminal only. "hvproto --install-completion" has the shell
    complete commands, options and the names of bundled kernels.

    \b
    Examples:
      hvproto run
      hvproto run --report report.html
      hvproto boot guest
      hvproto COMMAND --help
    """


app.command()(reported(run))
app.command()(reported(boot))
app.command()(reported(debug))
app.command()(reported(guests))
app.command()(reported(claims))
app.command()(reported(bench))
app.command()(reported(campaign))
