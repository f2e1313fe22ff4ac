"""Traps that machine code finds in a table, among other hooks at the same places: nobody is left out or called twice."""

from __future__ import annotations

import random
from collections import Counter

from hvproto.processor.native import NativeEngine
from tests.support.bench import Bench

CODE = 0x1000
COUNT = 3000
"""NOPs, more than the first table has room for."""


def _run(bench: Bench) -> tuple[Counter[int], Counter[int]]:
    bench.view[CODE : CODE + COUNT + 1] = b"\x90" * COUNT + b"\xf4"
    trapped: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    engine = bench.cpu.engine
    engine.callbacks.trap = lambda address: trapped.update([address]) or False  # type: ignore[func-returns-value]
    engine.callbacks.watched = lambda address: seen.update([address]) or False  # type: ignore[func-returns-value]
    engine.flush_code()
    bench.cpu.eip = CODE
    bench.cpu.run(bench.cpu.now + 10 * COUNT)
    return trapped, seen


def test_every_trap_and_every_watch_is_called_once_whatever_was_planted_and_taken_back() -> None:
    bench = Bench("native")
    engine = bench.cpu.engine
    assert isinstance(engine, NativeEngine)
    draw = random.Random(1)
    planted: set[int] = set()
    watched: set[int] = set()
    for _ in range(6):
        for address in draw.sample(range(CODE, CODE + COUNT), 900):
            action = draw.choice(("plant", "plant", "plant", "watch"))
            if action == "plant":
                (engine.unplant if address in planted else engine.plant)(address)
                planted ^= {address}
            else:
                (engine.unwatch if address in watched else engine.watch)(address)
                watched ^= {address}
        trapped, seen = _run(bench)
        assert trapped == Counter(planted)
        assert seen == Counter(watched)


def test_who_hears_all_code_hears_the_instructions_with_traps_too() -> None:
    bench = Bench("native")
    engine = bench.cpu.engine
    for address in (CODE + 3, CODE + 5):
        engine.plant(address)
    heard: list[int] = []

    class Listener:
        def on_code(self, address: int, _size: int) -> None:
            heard.append(address)

    listener = Listener()
    engine.hear_code(listener.on_code)
    trapped, _ = _run(bench)
    assert heard == list(range(CODE, CODE + COUNT + 1))
    assert trapped == Counter((CODE + 3, CODE + 5))
