"""Where the oracles agree and the manual still leaves it open, or contradicts itself: nobody is held to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tools.oracle.case import Case
from tools.oracle.difference import OUTCOME


@dataclass(frozen=True)
class OpenQuestion:
    """Cases of which some field isn't compared."""

    key: str
    names: str
    """A regular expression for the beginning of the cases' names."""
    fields: frozenset[str]
    reason: str


OPEN_QUESTIONS = (
    OpenQuestion(
        "features-of-the-model",
        r"privileged/clac/",
        frozenset({OUTCOME}),
        "CLAC is there with SMAP only, which not every model has (SDM vol. 2, CLAC and CPUID).",
    ),
    OpenQuestion(
        "iret-absent-stack",
        r"outward/iretq?/absent/to",
        frozenset({OUTCOME}),
        "An absent stack segment is #SS in IRET's operation and #NP in its list of exceptions (SDM vol. 2, IRET).",
    ),
)


def unchecked(case: Case) -> frozenset[str]:
    """The fields of a case to which nobody is held whatever the oracles say."""
    found = (question.fields for question in OPEN_QUESTIONS if re.match(question.names, case.name))
    return frozenset[str]().union(*found)
