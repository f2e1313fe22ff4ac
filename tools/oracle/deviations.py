"""What our engines do wrong, known and listed. Whatever isn't here fails the tests; what has been mended must go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.oracle.difference import Difference
from tools.oracle.verdicts import VERDICTS

BOTH = ("native", "portable")


@dataclass(frozen=True)
class Deviation:
    """One thing that an engine does otherwise than the manual. In a difference, ``first`` is what is right."""

    key: str
    what: str
    """One line: what is wrong."""
    why: str
    """Why the engine can't, and what shows it."""
    applies: Callable[[Difference], bool]
    engines: tuple[str, ...] = BOTH


OWN: tuple[Deviation, ...] = ()

SHARED: frozenset[str] = frozenset()
"""Keys of verdicts against QEMU: the engine is made from QEMU's code and errs in the same way."""


def excuse(difference: Difference, engine: str) -> str | None:
    """The key of the entry that covers what an engine does wrong; None if there is none."""
    for entry in OWN:
        if engine in entry.engines and entry.applies(difference):
            return entry.key
    return next((key for key in sorted(SHARED) if _verdict(key)(difference)), None)


def _verdict(key: str) -> Callable[[Difference], bool]:
    return next(verdict for verdict in VERDICTS if verdict.key == key).applies
