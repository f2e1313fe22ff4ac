"""What devices have to complain of: a program that uses them as their data sheets don't allow.

Hardware says nothing then, and does something or other; so a driver's mistake is found late. Here it is on a list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hvproto.errors import Where

MOST = 256
"""So many different complaints are kept; what comes after them is only counted."""

Complain = Callable[[str], None]


def ignore(_what: str) -> None:
    """For a device that nobody listens to."""


@dataclass(frozen=True, slots=True)
class DeviceMisuse:
    """``device`` was used wrongly: ``what`` says how, ``count`` how often by the same instruction.

    ``where`` is the IN or OUT; of an access to memory, only the block of code it is in is known. ``at`` is virtual time
    in cycles, of the first time.
    """

    device: str
    what: str
    where: Where
    at: int
    count: int = 1

    def __str__(self) -> str:
        times = "" if self.count == 1 else f" ({self.count:,} times)"
        return f"{self.device}: {self.what}{times}, {self.where}, cycle {self.at:,}"


class Complaints:
    """Those of one machine, in the order in which they came. ``now`` and ``where`` tell of the moment."""

    def __init__(self, now: Callable[[], int], where: Callable[[], Where]) -> None:
        self._now = now
        self._where = where
        self._found: dict[tuple[str, str, Where], DeviceMisuse] = {}
        self.others = 0
        """How many came after the list was full."""

    @property
    def found(self) -> list[DeviceMisuse]:
        """What there is so far."""
        return list(self._found.values())

    def of(self, device: str) -> Complain:
        """For a device of this name to complain with."""

        def complain(what: str) -> None:
            where = self._where()
            key = device, what, where
            before = self._found.get(key)
            if before is not None:
                self._found[key] = replace(before, count=before.count + 1)
            elif len(self._found) < MOST:
                self._found[key] = DeviceMisuse(device, what, where, self._now())
            else:
                self.others += 1

        return complain
