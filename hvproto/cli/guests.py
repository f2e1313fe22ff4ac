"""`hvproto guests`: the kernels that have a name, the project's own and the bundled ones."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hvproto import project


def guests(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of lines.")] = False,
) -> None:
    """List the kernels that have a name: the project's own, then the bundled ones, and what each of them shows.

    A project names its own in its pyproject.toml, as [tool.hvproto.guests] and [tool.hvproto.hosts]: mine = "mine.asm".

    \b
    Examples:
      hvproto guests
      hvproto run --guest hello              run one of them
      hvproto guests --json | python3 -m json.tool
    """
    kernels = project.named()
    if as_json:
        rows = [
            {"name": kernel.name, "kind": kernel.kind, "path": str(kernel.path), "description": kernel.description}
            for kernel in kernels
        ]
        typer.echo(json.dumps(rows))
        return
    width = max(len(kernel.name) for kernel in kernels)
    for kernel in kernels:
        typer.echo(f"{kernel.name:<{width}}  {kernel.kind:<5}  {kernel.description}")
