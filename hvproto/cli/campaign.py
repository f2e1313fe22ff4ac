"""`hvproto campaign`: many scenarios, on all cores or a cluster, with their results in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def campaign(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A campaign file, or the bundled one: hostile.")],
    results: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The results.", show_default="the campaign's name with .sqlite, here"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-j", min=1, metavar="N", help="Processes.", show_default="one for each core"),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Instead: the Dask cluster of this scheduler.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away the results that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the summary.")] = False,
) -> None:
    """Run the scenarios of a campaign that have no result yet, and say what has failed.

    A scenario is a guest with a plan, a seed and a schedule by which the region moves. Results go to an SQLite file,
    one row of the table "result" for each, and are the same whoever has run them; when the command is interrupted or
    killed, it goes on from there the next time. The first failures are made small, and each has the command that has a
    look at it. The exit status is 0 if all is as expected, 1 if something isn't, 2 if the input can't be used.

    \b
    Examples:
      hvproto campaign hostile
      hvproto campaign ideas.toml --results ideas.sqlite -j 4
      hvproto campaign ideas.toml --scheduler tcp://10.0.0.7:8786
      hvproto campaign ideas.toml --json | jq .failures
      sqlite3 ideas.sqlite "SELECT guest, kind, count(*) FROM result GROUP BY 1, 2"
    """
    # Here, since no other command has a use for processes, databases and what runs in them.
    from hvproto.campaign.file import find_campaign, read_campaign
    from hvproto.campaign.report import print_summary, progress_bar
    from hvproto.campaign.run import run_campaign
    from hvproto.campaign.store import open_store
    from hvproto.campaign.workers import Workers, local_workers
    from hvproto.errors import BadInput

    if scheduler is not None and workers is not None:
        raise BadInput("--workers is for this machine; the cluster has as many as it has")
    wanted = read_campaign(find_campaign(file))
    path = Path(results or f"{wanted.name}.sqlite")
    with open_store(path, wanted, fresh=fresh) as store:
        runners: Workers
        if scheduler is None:
            runners = local_workers(workers)
        else:
            from hvproto.campaign.cluster import ClusterWorkers

            runners = ClusterWorkers(scheduler)
        try:
            with progress_bar(wanted.name) as progress:
                run_campaign(wanted, store, runners, progress)
        finally:
            runners.close()
        failed = print_summary(wanted, store, as_json=as_json)
    raise typer.Exit(1 if failed else 0)
