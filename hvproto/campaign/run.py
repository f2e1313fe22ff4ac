"""A campaign from the first scenario to the last, or on from where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hvproto.campaign.file import Campaign
from hvproto.campaign.generated import Generated
from hvproto.campaign.minimise import Failure, Smallest, minimise
from hvproto.campaign.perform import perform
from hvproto.campaign.scenario import FAILED, Result, Scenario
from hvproto.campaign.store import Store
from hvproto.campaign.workers import Workers

WORKER_DIED = "worker died"

Progress = Callable[[str, int, int], None]
"""Called with what is being done ("scenarios", "failures made small"), how many of them are done, and of how many."""


def run_campaign(campaign: Campaign, store: Store, workers: Workers, progress: Progress = lambda *_: None) -> None:
    """Run what has no result yet, then have a look at what has failed."""
    there, total = store.numbers(), len(campaign)
    done = len(there)
    progress("scenarios", done, total)
    missing = (scenario for scenario in campaign.scenarios() if scenario.number not in there)
    for scenario, result in workers.each(perform, missing):
        store.add(scenario, result or _died(scenario))
        done += 1
        progress("scenarios", done, total)
    _explain(campaign, store, workers, progress)


def _died(scenario: Scenario) -> Result:
    return Result(
        scenario.number, FAILED, WORKER_DIED, WORKER_DIED, "the process that ran it died each time it was run"
    )


def _explain(campaign: Campaign, store: Store, workers: Workers, progress: Progress) -> None:
    """Make the first failures small, and give each one the command that has a look at it."""
    failed, there = dict(store.failures()), store.explained()
    if not failed:
        return
    small = set(list(failed)[: campaign.minimise])
    pending = [
        Failure(scenario, failed[scenario.number], store.moves(scenario.number))
        for scenario in campaign.scenarios()
        if scenario.number in failed.keys() - there
    ]
    simple = [each for each in pending if each.number not in small or each.kind == WORKER_DIED]
    for each in simple:  # what kills workers would kill more of them
        _write_down(store, Smallest(each.scenario, 0))
    hard = [each for each in pending if each not in simple]
    done, total = len(small) - len(hard), len(small)
    for failure, smallest in workers.each(minimise, hard):
        _write_down(store, smallest or Smallest(failure.scenario, 0))
        done += 1
        progress("failures made small", done, total)


def _write_down(store: Store, smallest: Smallest) -> None:
    store.explain(smallest.scenario, smallest.runs, command_for(smallest.scenario, store.path))


def command_for(scenario: Scenario, results: Path) -> list[str]:
    """The command that runs a scenario in the debugger; a generated kernel is written out beside the results."""
    guest, host = scenario.guest, scenario.host
    if isinstance(guest, Generated):
        folder = results.with_name(f"{results.stem}-guests")
        folder.mkdir(exist_ok=True)
        file = folder / f"{scenario.number}.asm"
        file.write_text(guest.text, encoding="utf-8")
    else:
        file = Path(guest.path)
    command = ["hvproto", "debug", "--guest", str(file.resolve()), "--plan", scenario.plan]
    command += ["--host", str(Path(host.path).resolve()), "--limit", str(scenario.hosted_limit)]
    if scenario.relocation != "never":
        command += ["--relocate", scenario.relocation]
    if scenario.relocation.startswith("random"):
        command += ["--seed", str(scenario.seed)]
    for handler in scenario.handlers:
        command += ["--handler", str(handler)]
    if scenario.policy is not None:
        command += ["--policy", str(scenario.policy)]
    return command
