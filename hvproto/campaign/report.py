"""What a person, or a program, is told of a campaign: progress on a terminal, a summary at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hvproto.campaign.file import Campaign
from hvproto.campaign.run import Progress as Told
from hvproto.campaign.scenario import FAILED, PASSED
from hvproto.campaign.store import Store

SHOWN = 10
"""Failures that the summary tells; the file has them all."""


@contextmanager
def progress_bar(name: str) -> Iterator[Told]:
    """A bar on stderr, if that is a terminal; nothing otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what, _done, _total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"{name}: {what}", total=total, completed=done)
            progress.update(tasks[what], completed=done, total=total)

        yield told


def print_summary(campaign: Campaign, store: Store, *, as_json: bool) -> int:
    """Print what has come of the campaign; gives the number of scenarios that have failed."""
    counts = store.counts()
    passed = sum(count for (verdict, _), count in counts.items() if verdict == PASSED)
    failed = sum(count for (verdict, _), count in counts.items() if verdict == FAILED)
    if as_json:
        endings = [
            {"verdict": verdict, "ending": ending, "scenarios": count} for (verdict, ending), count in counts.items()
        ]
        print(
            json.dumps(
                {"campaign": campaign.name, "results": str(store.path), "scenarios": passed + failed, "passed": passed,
                 "failed": failed, "endings": endings, "failures": list(store.rows())}
            )
        )  # fmt: skip
        return failed
    for row in list(store.rows())[:SHOWN]:
        print(_told(row))
    if failed > SHOWN:
        print(f"... and {failed - SHOWN} more failures; all are in {store.path}\n")
    print(f"{campaign.name}: {passed + failed:,} scenarios, {passed:,} passed, {failed:,} failed")
    print(f"results: {store.path}")
    print("; ".join(f"{ending} {count:,}" for ending, count in _endings(counts).items()), flush=True)
    return failed


def _endings(counts: dict[tuple[str, str], int]) -> dict[str, int]:
    """How many scenarios ended in each way, most first."""
    sums: dict[str, int] = {}
    for (_, ending), count in counts.items():
        sums[ending] = sums.get(ending, 0) + count
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _told(row: dict[str, object]) -> str:
    detail = str(row["detail"]).splitlines()
    lines = [
        f"FAILED {row['number']}: {row['guest']}, plan {row['plan']}, seed {row['seed']}, "
        f"relocation {row['relocation']}, expected: {row['expect']}",
        *(f"    {line}" for line in detail[:6]),
    ]
    if row["runs"]:
        size = f", {row['smallest_bytes']} bytes" if row["smallest_bytes"] is not None else ""
        lines.append(
            f"  smallest, after {row['runs']} runs: relocation {row['smallest_relocation']}, "
            f"limit {row['smallest_limit']:,}{size}"
        )
    return "\n".join([*lines, f"  {row['command']}", ""])
