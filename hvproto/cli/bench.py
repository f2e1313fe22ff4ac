"""`hvproto bench`: what things cost here, each row against its yardstick and its bar."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hvproto.cli.page import make_console
from hvproto.errors import BadInput

_TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"
ROUNDS, QUICK_ROUNDS = 7, 3


def bench(
    rows: Annotated[list[str] | None, typer.Argument(help="Names of rows; all of them if none is given.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller samples, three rounds: under a minute.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit status 1 if a row misses its bar by more than the tolerance.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="How often each row is measured.")] = None,
    plot: Annotated[str | None, typer.Option("--plot", help="Write how costs grow to this SVG file.")] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="IMAGE", help="A small system's disk, with a prompt of '$ ' on COM1."),
    ] = None,
    disk: Annotated[
        str | None,
        typer.Option(
            "--disk", metavar="FILE", help="The system's second disk; the host's, where the system is a guest."
        ),
    ] = None,
    load: Annotated[str, typer.Option("--load", help="What its shell is to do; parted by semicolons.")] = "ls",
) -> None:
    """Measure what things cost, as ratios: everything in turns, each beside its yardstick; medians and their spread.

    Y is one empty hook on interrupts through Unicorn's own Python binding; raw is plain Unicorn; naive is the script
    that one would write with its public interface, in tools/bench/naive.py.

    \b
    Examples:
      hvproto bench --quick
      hvproto bench cli call hidden
      hvproto bench --quick --check --json
      hvproto bench --plot growth.svg
      hvproto bench system system-hosted --system unix.img --disk fs.img --load 'forktest; ls'
    """
    measure, table = _module("measure"), _module("table")
    for path in (system, disk):
        if path is not None and not Path(path).is_file():
            raise BadInput(f"{path}: there is no such file")
    if disk is not None and system is None:
        raise BadInput("--disk goes with --system")
    chosen = _chosen(table.all_rows(None if system is None else table.system(system, load, disk)), rows or [])
    console = make_console()
    times = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    results = measure.run(chosen, quick=quick, rounds=times, progress=_progress)
    tolerance = measure.TOLERANCE
    if as_json:
        typer.echo(json.dumps({"tolerance": tolerance, "rows": [result.to_json() for result in results]}))
    else:
        _print(console, results, tolerance)
    if plot is not None:
        _plot(plot, measure.Sizes(quick))
    if check and any(result.holds(tolerance) is False for result in results):
        raise typer.Exit(1)


def _module(name: str) -> Any:
    """A part of tools/bench, which isn't installed with the package. Raises BadInput."""
    if not (_TOOLS / "bench").is_dir():
        raise BadInput(f"the measurements are in the source tree, under tools/bench, and {_TOOLS} isn't one")
    if str(_TOOLS) not in sys.path:
        sys.path.insert(0, str(_TOOLS))
    return importlib.import_module(f"bench.{name}")


def _chosen(known: list[Any], names: list[str]) -> list[Any]:
    by_name = {row.name: row for row in known}
    for name in names:
        if name not in by_name:
            raise BadInput(f"there is no row {name!r}: the rows are {', '.join(by_name)}")
    return [by_name[name] for name in names] if names else known


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _print(console: Any, results: list[Any], tolerance: float) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("row", "what", "median", "spread", "unit", "bar", ""):
        table.add_column(column, overflow="fold", justify="right" if column in ("median", "spread", "bar") else "left")
    for result in results:
        row = result.row
        bar = f"{'>=' if row.at_least else '<='} {row.bar:g}"
        if result.median is None:
            table.add_row(row.name, row.what, "-", "-", row.unit, bar, Text(row.missing or result.problem))
            continue
        verdict = "ok" if result.holds(1.0) else "near" if result.holds(tolerance) else "MISSED"
        spread = f"{_number(min(result.ratios))} to {_number(max(result.ratios))}"
        table.add_row(row.name, row.what, _number(result.median), spread, row.unit, bar, verdict)
    console.print(table)
    console.print(f'"near": within a factor of {tolerance:g} of the bar, the tolerance of --check')


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plot(path: str, sizes: Any) -> None:
    plot = _module("plot")
    try:
        Path(path).write_text(plot.svg(plot.growth(sizes)), encoding="utf-8")
    except OSError as problem:
        raise BadInput(f"{path}: {problem.strerror}") from None
