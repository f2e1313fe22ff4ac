"""Stress for a test suite: the region moves although the guest hasn't asked for it, and nothing may come of that."""

from __future__ import annotations

from hvproto.addresses import GVA, PAGE_SIZE
from hvproto.errors import NoRoom
from hvproto.hypervisor.exit_view import Answer, Exit


class Relocator:
    """A handler of exits that moves the region before every ``every``-th one, to and fro below the highest hole."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._exits = 0
        self.moves = 0

    def __call__(self, seen: Exit) -> Answer:
        self._exits += 1
        if self._exits % self._every == 0:
            self._move(seen)
        return None

    def _move(self, seen: Exit) -> None:
        space = seen.guest.space
        try:
            top = space.hole()
        except NoRoom:
            return  # it stays where it is
        size = space.region.size
        below = GVA(top - (1 + self.moves % 7) * size)
        if below > 0 and space.mirror.space.is_free(below, size // PAGE_SIZE):
            top = below
        if top != space.region.base:
            self.moves += 1
            space.move_region(top)
