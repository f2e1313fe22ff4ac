"""The lists of hooks by page: each trap is found that is on the page of a block, and nothing else changes."""

from __future__ import annotations

import random

import pytest
from unicorn import unicorn_const as uc_const

from hvproto.processor import private_layout
from hvproto.processor.processor import Stop
from tests.support.bench import Bench

pytestmark = pytest.mark.skipif(private_layout.self_check() is not None, reason="no native engine here")

PAGES = 6
CODE = 0x40000
_NOP, _HLT = b"\x90", b"\xf4"


def _bench(engine: str) -> Bench:
    """Six pages of NOP, at ring 0 with nothing else in the way, and HLT at their end."""
    bench = Bench(engine)
    bench.view[CODE : CODE + PAGES * 4096] = _NOP * (PAGES * 4096 - 1) + _HLT
    return bench


def _stops(bench: Bench) -> list[int]:
    """Where the traps end the run, one after the other."""
    found: list[int] = []
    processor = bench.cpu

    def is_trap(address: int) -> bool:
        return address not in found[-1:]

    processor.is_trap = is_trap
    processor.eip = CODE
    while processor.run(processor.now + 1_000_000) is Stop.TRAP:
        found.append(processor.trapped_at)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_each_of_a_thousand_traps_is_found_and_no_other(seed: int) -> None:
    draw = random.Random(seed)
    addresses = [*draw.sample(range(CODE, CODE + PAGES * 4096 - 1), 1000), CODE + 4095, CODE + 4096]
    addresses = sorted(set(addresses))
    bench = _bench("native")
    for address in addresses:
        bench.cpu.engine.plant(address)
    assert _stops(bench) == addresses
    gone = set(draw.sample(addresses, 300))
    for address in sorted(gone):
        bench.cpu.engine.unplant(address)
    bench.cpu.engine.flush_code()
    assert _stops(bench) == [address for address in addresses if address not in gone]
    for address in sorted(gone):
        bench.cpu.engine.plant(address)
    bench.cpu.engine.flush_code()
    assert _stops(bench) == addresses


def test_somebody_elses_hook_is_called_and_ours_are() -> None:
    bench = _bench("native")
    engine = bench.cpu.engine
    engine.plant(CODE + 10)
    seen: list[int] = []
    engine.uc.hook_add(
        uc_const.UC_HOOK_CODE, lambda _uc, at, _size, _data: seen.append(at), begin=CODE + 5, end=CODE + 7
    )
    engine.plant(CODE + 20)
    assert _stops(bench) == [CODE + 10, CODE + 20]
    assert seen == [CODE + 5, CODE + 6, CODE + 7]
    engine.unplant(CODE + 20)
    engine.flush_code()
    seen.clear()
    assert _stops(bench) == [CODE + 10]
    assert seen == [CODE + 5, CODE + 6, CODE + 7]


def test_a_translation_that_a_fault_ends_leaves_the_list_whole() -> None:
    """The block runs into memory that isn't there: its translation is left, and others have their hooks after it."""
    bench = _bench("native")
    engine, processor = bench.cpu.engine, bench.cpu
    engine.plant(CODE + 3)
    end = len(bench.view) - 4
    bench.view[end:] = _NOP * 4
    processor.eip = end
    with pytest.raises(Exception, match="fetch"):
        processor.run(processor.now + 1000)
    engine.plant(CODE + 4097)
    engine.flush_code()
    assert _stops(bench) == [CODE + 3, CODE + 4097]
