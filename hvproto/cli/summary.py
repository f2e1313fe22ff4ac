"""The summary table at the end of `hvproto run`."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvproto.cli.counts import Counts
from hvproto.hypervisor.hypervisor import Hypervisor
from hvproto.images.image import Image
from hvproto.machine.clock import CYCLES_PER_SECOND
from hvproto.machine.machine import Machine

ROUTES = {
    "reflect": "reflected to the guest's own handler",
    "direct": "taken by the processor to the guest's handler",
    "host": "that came to the guest's handler through the host's",
    "handle": "handled out of the guest's sight",
}


def facts_of_the_host(machine: Machine, host: Image) -> list[tuple[str, str]]:
    """What the host's memory says of itself when all is over, beside what the timer did."""
    facts = [("timer interrupts raised", f"{machine.board.pit.raised:,}")]
    for symbol, row in (
        ("ticks", "ticks that the host counted"),
        ("worker_count", "primes of the host's other program"),
    ):
        address = host.symbols.get(symbol)
        if address is not None and address + 4 <= machine.ram.size:
            value = int.from_bytes(machine.ram.view[address : address + 4], "little")
            facts.append((row, f"{value:,}"))
    return facts


def facts_of_the_guests(hypervisor: Hypervisor, names: Sequence[str]) -> list[tuple[str, str]]:
    """How each of several guests has ended; nothing of one that is alone, whose end is everybody's."""
    if len(names) == 1:
        return []
    facts = []
    for number, name in enumerate(names):
        guest, failure = hypervisor.guests.get(number), hypervisor.failures.get(number)
        if failure is not None:
            end = type(failure).__name__
        elif guest is None or guest.status is None:
            end = "never entered" if guest is None else "still running"
        else:
            end = f"{guest.status}"
        facts.append((f"exit status of guest [{name}]", end))
    return facts


def print_summary(console: Console, counts: Counts, host_facts: list[tuple[str, str]], status: int) -> None:
    """The table: one row a number, what it is made of in the third column."""
    table = Table(title="The run in numbers", box=box.SIMPLE, title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("how many", justify="right", no_wrap=True)
    table.add_column("of which", overflow="fold")

    def row(what: str, number: int | str, detail: str = "") -> None:
        table.add_row(Text(what), Text(f"{number:,}" if isinstance(number, int) else number), Text(detail))

    row("decouplings", counts.decouplings, f"of {', '.join(counts.settings)}" if counts.settings else "")
    row("recouplings", counts.recouplings, _listing(counts.reasons))
    for route, words in ROUTES.items():
        names = {name: number for (taken, name), number in counts.exceptions.items() if taken == route}
        if names:
            row(f"exceptions {words}", sum(names.values()), _listing(names))
    row("host functions", sum(counts.functions.values()), _listing(counts.functions))
    row("writes to page tables", counts.table_writes, f"{counts.no_conflicts:,} without conflict")
    row("conflicts with the region", counts.conflicts)
    row("relocations of the region", counts.relocations, f"{len(counts.places):,} places" if counts.places else "")
    row("virtual time in cycles", counts.at, f"{1000 * counts.at / CYCLES_PER_SECOND:.2f} ms")
    for what, number in host_facts:
        row(what, number)
    row("exit status", status, counts.end.reason if counts.end else "")
    console.print(table)


def _listing(numbers: dict[str, int]) -> str:
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {name}" for name, number in ordered)
