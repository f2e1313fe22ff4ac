"""Stress for a test suite: the region moves although the guest hasn't asked for it, and nothing may come of that."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import islice
from typing import Protocol

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.errors import BadInput, NoRoom
from hvproto.hypervisor.exit_view import Answer, Exit

HOLES = 64
"""How many holes, from the highest on, a random place is drawn from."""
_NUMBERED = re.compile(r"(every|random) ([1-9][0-9]*)")
_MOVE = re.compile(r"([1-9][0-9]*)=(0x[0-9a-f]+)")
SYNTAX = '"never", "every N", "random N" (before one exit in N on average) or "at EXIT=ADDRESS,..."'


class Schedule(Protocol):
    """Says before which exits, counted from 1, the region moves, and where to."""

    def place(self, number: int, seen: Exit, moves: int) -> GVA | None:
        """Where the region is to go before this exit, ``moves`` moves having been made; None if it stays."""


class Never:
    """It stays where it is."""

    def place(self, number: int, seen: Exit, moves: int) -> GVA | None:
        return None


class Every:
    """To and fro below the highest hole, before every ``every``-th exit."""

    def __init__(self, every: int) -> None:
        self._every = every

    def place(self, number: int, seen: Exit, moves: int) -> GVA | None:
        if number % self._every:
            return None
        space = seen.guest.space
        try:
            top = space.hole()
        except NoRoom:
            return None
        size = space.region.size
        below = GVA(top - (1 + moves % 7) * size)
        return below if below > 0 and space.mirror.space.is_free(below, size // PAGE_SIZE) else top


class Randomly:
    """To any free place, before one exit in ``every`` on average; when and where to is the seed's to say."""

    def __init__(self, every: int, seed: int) -> None:
        self._every, self._random = every, random.Random(seed)

    def place(self, number: int, seen: Exit, moves: int) -> GVA | None:
        if self._random.randrange(self._every):
            return None
        space = seen.guest.space
        pages = space.region.pages
        holes = list(islice(space.mirror.space.holes(pages), HOLES))
        if not holes:
            return None
        start, found = self._random.choice(holes)
        return GVA(start + self._random.randrange(found - pages + 1) * PAGE_SIZE)


class At:
    """Before these exits, to these places (GVA), as far as they are free then."""

    def __init__(self, places: Mapping[int, int]) -> None:
        self._places = dict(places)

    def place(self, number: int, seen: Exit, moves: int) -> GVA | None:
        wanted = self._places.get(number)
        space = seen.guest.space
        if wanted is None or not space.mirror.space.is_free(wanted, space.region.pages):
            return None
        return GVA(wanted)


def parse_schedule(text: str, seed: int = 0) -> Schedule:
    """The schedule that a text stands for. Raises BadInput.

    >>> parse_schedule("every 3").__class__.__name__, parse_schedule("at 1=0xfff00000,7=0x1000").__class__.__name__
    ('Every', 'At')
    """
    if text == "never":
        return Never()
    if numbered := _NUMBERED.fullmatch(text):
        every = int(numbered[2])
        return Every(every) if numbered[1] == "every" else Randomly(every, seed)
    if text.startswith("at "):
        moves = [_MOVE.fullmatch(move) for move in text.removeprefix("at ").split(",")]
        if all(moves):
            return At({int(move[1]): int(move[2], 16) for move in moves if move})
    raise BadInput(f"{text!r} is no relocation schedule: write {SYNTAX}")


def spelled(moves: Mapping[int, int]) -> str:
    """The text of a schedule that makes these moves.

    >>> spelled({7: 0xFFF00000}), spelled({})
    ('at 7=0xfff00000', 'never')
    """
    return "at " + ",".join(f"{number}={place:#x}" for number, place in moves.items()) if moves else "never"


class Relocator:
    """A handler of exits that moves the region by a schedule; a number N stands for `Every` N."""

    def __init__(self, schedule: Schedule | int) -> None:
        self._schedule = Every(schedule) if isinstance(schedule, int) else schedule
        self._exits = 0
        self.made: dict[int, int] = {}
        """The moves so far: by number of the exit, from 1, where the region went (GVA)."""

    @property
    def moves(self) -> int:
        return len(self.made)

    def __call__(self, seen: Exit) -> Answer:
        self._exits += 1
        place = self._schedule.place(self._exits, seen, self.moves)
        space = seen.guest.space
        if place is not None and place != space.region.base:
            self.made[self._exits] = place
            space.move_region(place)
        return None
