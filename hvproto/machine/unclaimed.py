"""Accesses to places where no device answers: what a driver for an absent device leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Space(StrEnum):
    """The two address spaces of a PC."""

    PORT = "port"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """``count`` accesses of one direction to a port, or to the page of physical memory at ``address``."""

    space: Space
    address: int
    direction: str
    """"read" or "write"."""
    count: int

    def __str__(self) -> str:
        place = f"port {self.address:#06x}" if self.space is Space.PORT else f"memory page {self.address:#010x}"
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return f"{place}: {self.direction} {times}"


def list_unclaimed(ports: Mapping[tuple[str, int], int], pages: Mapping[tuple[str, int], int]) -> list[Unclaimed]:
    """All of them, ports first, in order of address, reads before writes."""
    found = [
        Unclaimed(space, address, direction, count)
        for space, counts in ((Space.PORT, ports), (Space.MEMORY, pages))
        for (direction, address), count in counts.items()
    ]
    return sorted(found, key=lambda one: (one.space is Space.MEMORY, one.address, one.direction))
