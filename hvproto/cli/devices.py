"""`--devices`: on stderr, at the end, what the kernel wanted of devices that aren't there, or that couldn't do it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hvproto.machine.machine import Machine


@contextmanager
def device_report(machine: Machine, *, wanted: bool) -> Iterator[None]:
    """Print the report, if it is wanted, however the run ends."""
    try:
        yield
    finally:
        if wanted:
            print("\n".join(report(machine)), file=sys.stderr, flush=True)


def report(machine: Machine) -> list[str]:
    """The report's lines."""
    lines = ["accesses that nobody answered:"]
    lines += [f"  {one}" for one in machine.unclaimed] or ["  none"]
    if machine.platform.space.unclaimed_elsewhere:
        lines.append(f"  other memory pages: {machine.platform.space.unclaimed_elsewhere:,} times")
    lines.append("devices that were used wrongly:")
    lines += [f"  {one}" for one in machine.complaints.found] or ["  none"]
    if machine.complaints.others:
        lines.append(f"  and {machine.complaints.others:,} times more")
    return lines
