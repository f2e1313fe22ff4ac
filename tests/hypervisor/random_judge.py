"""Whether a kernel of random bytes comes to the same alone and as a guest, and what can't be said of it.

Where the two differ, there may be a reason for which no more can be compared; each is one of the properties of a run that
are looked for here, and is counted. The host must be untouched, and the guest's end one that is foreseen, whatever it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hvproto.addresses import PAGE_SIZE
from hvproto.errors import NoMemory, TripleFault, Unsupported, World
from hvproto.processor.segments import Segment
from tests.hypervisor.random_kernels import RandomKernel
from tests.hypervisor.random_modes import ROOT, ROOT_END
from tests.hypervisor.random_runs import MARKS, Alone, Inn, Outcome

ALONE, LONGER, MUCH = 3_000, 40_000, 1_000_000
"""Cycles: what a kernel is given alone; what the same instructions may take a guest, exits and all; for what stands out.
"""
BOTH_RUN_ON = "both run on"
FORESEEN = (TripleFault, NoMemory, Unsupported)
_FETCH, _HLT = "instruction fetch", 0xF4
_NOT_AFTER_SHUTDOWN = ("eip", "eflags", "cr2")
"""Nobody sees the registers of a processor that has shut down; of these, the one has those of the first of the three
faults, the other those of the last."""


@dataclass
class Verdict:
    """Of one seed; ``excuse`` says why not all could be compared, if it couldn't."""

    alone: Outcome
    hosted: Outcome
    escapes: list[str]
    """What must never be, whatever the two come to: the host isn't as it was, an error that nobody foresaw."""
    differences: list[str]
    excuse: str = ""

    @property
    def wrong(self) -> list[str]:
        """All that nothing excuses."""
        return self.escapes + ([] if self.excuse else self.differences)


def judge(kernel: RandomKernel, alone: Alone, inn: Inn) -> Verdict:
    """Run a kernel alone and as a guest, and compare."""
    one = alone.run(kernel, ALONE)
    other = inn.host(kernel, ALONE if one.at_limit else LONGER)
    if one.at_limit and not other.at_limit:  # a cycle is a byte of code, and the two don't execute the same
        one = alone.run(kernel, MUCH)
    elif other.at_limit and not one.at_limit:
        other = inn.host(kernel, MUCH)
    wrong = inn.changes_of_host()
    if other.error is not None and not isinstance(other.error, FORESEEN):
        wrong.append(f"nobody foresaw: {other.error}")
    if other.error is not None and other.error.where.world is not World.GUEST:
        wrong.append(f"no error of the guest's: {other.error}")
    if one.at_limit and other.at_limit:
        return Verdict(one, other, wrong, [], BOTH_RUN_ON)  # where in its circle a program is, is a matter of time
    found = what_differs(one, other)
    return Verdict(one, other, wrong, found, _excuse(one, other, found, inn.is_portable) if found else "")


def what_differs(one: Outcome, other: Outcome) -> list[str]:
    """The kind of end, the output, the registers and all of memory."""
    if one.end != other.end:
        return [f"{one.end} / {other.end}"]
    names = one.registers.keys() | other.registers.keys()
    if isinstance(one.error, TripleFault):
        names -= set(_NOT_AFTER_SHUTDOWN)
    pairs = ((name, one.registers.get(name), other.registers.get(name)) for name in sorted(names))
    found = [f"{name} {mine} / {theirs}" for name, mine, theirs in pairs if mine != theirs]
    if one.output != other.output:
        found.append(f"output {one.output!r} / {other.output!r}")
    found += [f"[{at:#x}] {mine:#x} / {theirs:#x}" for at, mine, theirs in _words(one, other)]
    return found


def _words(one: Outcome, other: Outcome) -> Iterator[tuple[int, int, int]]:
    """The doublewords of memory that differ: (GPA, one, other)."""
    for page in np.flatnonzero((one.memory != other.memory).any(axis=1)).tolist():
        mine, theirs = one.memory[page].view(np.uint32), other.memory[page].view(np.uint32)
        for at in np.flatnonzero(mine != theirs).tolist():
            yield page * PAGE_SIZE + 4 * at, int(mine[at]), int(theirs[at])


def _excuse(one: Outcome, other: Outcome, found: list[str], portable: bool) -> str:
    if isinstance(other.error, Unsupported):
        return f"unsupported: {other.error.reason}"
    for name, outcome in (("alone", one), ("as a guest", other)):
        # Where instructions are executed in Python, there has to be memory; the engine lets stores go nowhere.
        if isinstance(outcome.error, NoMemory) and outcome.error.access != _FETCH:
            return f"{name} it ends at memory that isn't there"
    if one.rewrote_tables:
        return "it has rewritten its tables"
    if (
        one.error is None
        and one.status == other.status
        and one.output == other.output
        and (one.status or not _has_halted(other))
    ):
        return "the rest of the block behind the OUT that ended it"
    if all(difference.startswith("[") for difference in found) and _marks_only(one, other, portable):
        return "A and D where an access has faulted in the middle"
    return ""


def _has_halted(outcome: Outcome) -> bool:
    """Whether it has ended behind a HLT, and not at the debug exit port or by switching its machine off."""
    code, eip = outcome.registers["CS"], outcome.registers["eip"]
    assert isinstance(code, Segment) and isinstance(eip, int)
    memory = outcome.memory.reshape(-1).view(np.uint8)
    at = code.base + eip - 1
    return at < len(memory) and int(memory[at]) == _HLT


def _marks_only(one: Outcome, other: Outcome, either_way: bool) -> bool:
    """Whether memory differs in A and D bits of page tables only, and they are set for the guest.

    An access across pages, or one that reads and writes, may set them before it is refused (SDM vol. 3, 4.8). The
    portable engine can't take back what it has set alone: ``either_way``.
    """
    return all(
        ROOT <= at < ROOT_END and (mine ^ theirs) & ~int(MARKS) == 0 and (either_way or mine & ~theirs == 0)
        for at, mine, theirs in _words(one, other)
    )
