"""Make a failure small: the smallest scenario that still fails in the same way.

In turn: no relocation at all, or fewer moves; fewer bytes of a generated kernel; fewer cycles. Each try is a run.
Everything is decided by results, so that the outcome is the same wherever it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hvproto.campaign.generated import Generated
from hvproto.campaign.perform import perform
from hvproto.campaign.scenario import Scenario
from hvproto.testing.relocate import spelled

MOST_RUNS = 120
SHORTEST = 10_000
"""Cycles between the limit that is found and the smallest possible one."""

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class Failure:
    """A scenario that has failed, in what way, and with which moves."""

    scenario: Scenario
    kind: str
    moves: dict[int, int]

    @property
    def number(self) -> int:
        return self.scenario.number


@dataclass(frozen=True, slots=True)
class Smallest:
    """``runs`` is how many it took."""

    scenario: Scenario
    runs: int


def minimise(failure: Failure) -> Smallest:
    """The smallest scenario that fails as this one does. If that can't be had again, it stays as it is."""
    search = _Search(failure.kind)
    scenario = failure.scenario

    def moved(pieces: Sequence[tuple[int, int]]) -> Scenario:
        return replace(scenario, relocation=spelled(dict(pieces)))

    if failure.moves:
        kept = search.fewer(list(failure.moves.items()), moved)
        if kept is None:
            return Smallest(scenario, search.runs)
        scenario = moved(kept)
    guest = scenario.guest
    if isinstance(guest, Generated):

        def shortened(pieces: Sequence[int]) -> Scenario:
            return replace(scenario, guest=replace(guest, code=bytes(pieces)))

        code = search.fewer(list(guest.code), shortened)
        if code is not None:
            scenario = shortened(code)
    scenario = search.sooner(scenario)
    return Smallest(scenario, search.runs)


class _Search:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.runs = 0

    def fails(self, scenario: Scenario) -> bool:
        """Whether it fails in the same way; no more is tried once the runs are used up."""
        if self.runs >= MOST_RUNS:
            return False
        self.runs += 1
        return perform(scenario).kind == self._kind

    def fewer(self, pieces: list[Piece], make: Callable[[Sequence[Piece]], Scenario]) -> list[Piece] | None:
        """As few pieces as will do (delta debugging, Zeller 2002); None if not even all of them will."""
        if self.fails(make([])):
            return []
        if not self.fails(make(pieces)):
            return None
        parts = 2
        while len(pieces) > 1:
            size = -(-len(pieces) // parts)
            for start in range(0, len(pieces), size):
                rest = pieces[:start] + pieces[start + size :]
                if rest and self.fails(make(rest)):
                    pieces, parts = rest, max(parts - 1, 2)
                    break
            else:
                if parts >= len(pieces):
                    break
                parts = min(2 * parts, len(pieces))
        return pieces

    def sooner(self, scenario: Scenario) -> Scenario:
        """With the lowest limit that will do, within `SHORTEST`."""
        low, high = 0, scenario.limit
        while high - low > SHORTEST:
            middle = (low + high) // 2
            if self.fails(replace(scenario, limit=middle)):
                high = middle
            else:
                low = middle
        return replace(scenario, limit=high)
