"""10,000 seeds of random bytes as code, alone and as guests: the same end or a named error, and the host untouched.

A seed by itself, or some: ``HVPROTO_SEEDS=4711,100-200 pytest tests/hypervisor/test_random_code.py``.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from hvproto.addresses import PAGE_SIZE
from hvproto.processor import private_layout
from tests.hypervisor.random_judge import BOTH_RUN_ON, Verdict, judge, what_differs
from tests.hypervisor.random_kernels import RandomKernel, random_kernel
from tests.hypervisor.random_modes import DATA, LOG, MODES, PROGRAM, ROOT
from tests.hypervisor.random_runs import Alone, Inn

SEEDS, CHUNK = 10_000, 125
ON_THE_PORTABLE_ENGINE = 250
SEEDS_VARIABLE = "HVPROTO_SEEDS"
AGAIN = 40
"""Each so many seeds, one is executed once more where no kernel has been before."""
KNOWN = {
    2003: "alone: IRETD and RETF in real mode don't look whether EIP is beyond 64 KiB",
    2591: "alone: a far CALL in virtual-8086 mode stores with the rights of a supervisor",
    **dict.fromkeys((4151, 7131), "guest: the engine's flags after LOOPE and LOOPNE, before an instruction that traps"),
    4392: "a VEX prefix, which is no instruction without AVX, and half of one to the engine",
    7061: "it runs over the end of memory: in the last block, EIP isn't that of an instruction",
    7199: "guest: the EIP of a refused INT n with a prefix is one too high: the engine tells where its opcode is",
    8555: "ENTER with nested frames in real mode",
}
"""Seeds that differ, and by what; all else is asked of them, too."""
MOST_EXCUSES = 5
"""Of a chunk's seeds, at most so many may have differed with an excuse."""


def named(text: str) -> list[int]:
    """The seeds that somebody asks for: numbers and ranges, commas between them."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def chunks(total: int) -> list[range]:
    return [range(first, min(first + CHUNK, total)) for first in range(0, total, CHUNK)]


def check(seeds: Iterable[int], engine: str) -> list[str]:
    """Judge these seeds, one after the other on the same machines; fails with what is wrong, seed by seed.

    Returns the seeds' excuses, most of them empty.
    """
    alone, inn = Alone(engine), Inn(engine)
    wrong: list[str] = []
    excuses = []
    for seed in seeds:
        kernel = random_kernel(seed)
        verdict = judge(kernel, alone, inn)
        found = verdict.wrong if seed not in KNOWN else verdict.escapes
        if seed % AGAIN == 0:
            found = found + other_than_on_new_machines(kernel, verdict, engine)
        if found:
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            wrong.append(f"seed {seed} ({kernel.mode.name}), alone / as a guest: {'; '.join(found[:6])}{more}")
            alone, inn = Alone(engine), Inn(engine)
        excuses.append(verdict.excuse)
    del alone, inn
    gc.collect()  # an engine is big, and to the collector just an object
    command = f"{SEEDS_VARIABLE}=SEED pytest {os.path.relpath(__file__)}"
    assert not wrong, "\n".join([*wrong, f"One of them alone: {command}"])
    return excuses


def other_than_on_new_machines(kernel: RandomKernel, verdict: Verdict, engine: str) -> list[str]:
    anew = judge(kernel, Alone(engine), Inn(engine))
    if verdict.excuse == anew.excuse == BOTH_RUN_ON:
        return []
    found = what_differs(anew.alone, verdict.alone) + what_differs(anew.hosted, verdict.hosted)
    return [f"on new machines / on used ones: {difference}" for difference in found]


@pytest.mark.skipif(SEEDS_VARIABLE not in os.environ, reason=f"{SEEDS_VARIABLE} names no seeds")
def test_the_seeds_that_are_asked_for(engine: str) -> None:
    check(named(os.environ[SEEDS_VARIABLE]), engine)


asked_for_some = pytest.mark.skipif(SEEDS_VARIABLE in os.environ, reason=f"{SEEDS_VARIABLE} names others")


@asked_for_some
@pytest.mark.parametrize("seeds", chunks(SEEDS), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_random_bytes_come_to_the_same_alone_and_as_guests(seeds: range) -> None:
    reason = private_layout.self_check()
    if reason:
        pytest.skip(f"no native engine here: {reason}")
    excuses = Counter(check(seeds, "native"))
    compared = excuses.pop("", 0)
    excuses.pop(BOTH_RUN_ON, 0)
    assert excuses.total() <= MOST_EXCUSES, excuses
    assert compared >= len(seeds) * 3 // 4


@asked_for_some
@pytest.mark.parametrize("seeds", chunks(ON_THE_PORTABLE_ENGINE), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_random_bytes_on_the_portable_engine(seeds: range) -> None:
    check(seeds, "portable")


def test_the_comparison_notices_what_it_is_for() -> None:
    inn, kernel = Inn(), random_kernel(2)
    verdict = judge(kernel, Alone(), inn)
    assert not verdict.wrong and not verdict.excuse
    for at in (PROGRAM, DATA + 5, ROOT + 0x2008):
        other = replace(verdict.hosted, memory=verdict.hosted.memory.copy())
        other.memory.reshape(-1).view(np.uint8)[at] ^= 0x80
        assert len(what_differs(verdict.alone, other)) == 1
    for name in ("r0", "eip", "cr2", "CR3"):
        registers = {**verdict.hosted.registers, name: 77}
        assert what_differs(verdict.alone, replace(verdict.hosted, registers=registers))
    page = int(inn.host_rows[7])
    inn.rows[page, 3] ^= np.uint64(1)
    assert inn.changes_of_host() == [f"the host's page at {page * PAGE_SIZE:#x}"]


def test_every_mode_has_its_share_of_code_that_does_something() -> None:
    """Most seeds get past their first place to start at, and see exceptions of several kinds."""
    alone, inn = Alone(), Inn()
    for number, mode in enumerate(MODES):
        verdicts = [judge(random_kernel(seed), alone, inn) for seed in range(number, 90, len(MODES))]
        assert sum(not verdict.excuse for verdict in verdicts) >= 5, mode.name
        assert sum(verdict.hosted.memory[LOG // PAGE_SIZE].any() for verdict in verdicts) >= 8, mode.name
