"""Rows of what stops a guest: exits, system calls, world switches, host functions. In Y, or against the naive way."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from bench import kernel, naive, yardsticks
from bench.measure import Row, Sizes
from bench.rig import Rig
from hvproto.events import Event, EventBus
from hvproto.images.image import Image

Y = yardsticks.empty_hook
FEW = 100
HIDDEN = 2_800
"""With `FEW` more, of the 3,072 pages that a kernel of ours has for a body."""


def per_event(
    make: Callable[[int], Image],
    full: int,
    quick: int,
    sizes: Sizes,
    *,
    direct: bool = False,
    asks: bool = False,
) -> float:
    """Seconds for one: a run with many of them less a run with few. ``asks``: machine code decides nothing by
    itself."""
    count = sizes.of(full, quick)
    rigs = [Rig(make(number), kernel.MEMORY, direct=direct) for number in (FEW, count + FEW)]
    for rig in rigs if asks else ():
        rig.ask()
    times = [rig.run() for rig in rigs]
    return max(times[1] - times[0], 1e-9) / count


def _direct_call(sizes: Sizes) -> float:
    return per_event(kernel.system_calls, 200_000, 50_000, sizes, direct=True)


def _naive_call(sizes: Sizes) -> float:
    return naive.system_calls(sizes.of(2_000, 500))


def _qemu_call(sizes: Sizes) -> float:
    count = sizes.of(1_000_000, 300_000)
    start = yardsticks.in_qemu(kernel.system_calls(1))
    return max(yardsticks.in_qemu(kernel.system_calls(count)) - start, 1e-4) / count


def trapped(instruction: str, *, asks: bool = False) -> Callable[[Sizes], float]:
    make = functools.partial(kernel.counted, instruction)
    return functools.partial(per_event, make, 100_000, 30_000, asks=asks)


def _reflected(sizes: Sizes) -> float:
    return per_event(kernel.system_calls, 50_000, 15_000, sizes)


def _hidden(_sizes: Sizes) -> float:
    """... as many as there are pages, of which machine code deals with all but the first few: the shortest of three."""

    def run(count: int) -> float:
        rig = Rig(kernel.first_touches(count), kernel.MEMORY)
        rig.warm()
        return rig.run()

    few, many = (min(run(count) for _ in range(3)) for count in (FEW, FEW + HIDDEN))
    return max(many - few, 1e-9) / HIDDEN


def _switch(sizes: Sizes) -> float:
    """A decoupling and a recoupling with all settings, through the save area in RAM."""
    rig = Rig(kernel.counted("nop", 1), kernel.MEMORY)
    replacements = rig.guest.replacements()
    count = sizes.of(3_000, 1_000)
    start = time.perf_counter()
    for _ in range(count):
        rig.coupling.decouple(replacements)
        rig.coupling.recouple("bench")
    return (time.perf_counter() - start) / count


def _naive_switch(sizes: Sizes) -> float:
    return naive.world_switches(sizes.of(500, 200))


def _function(sizes: Sizes) -> float:
    """A character on the guest's serial port; four lines' worth go to the host together."""
    return per_event(functools.partial(kernel.counted, "mov dx, 0x3f8\nmov al, 'x'\nout dx, al"), 3_000, 1_000, sizes)


def _heard(sizes: Sizes) -> float:
    """The same trapped instruction with its event made and heard, for comparison."""
    count = sizes.of(10_000, 3_000)
    bus = EventBus()
    heard: list[Event] = []
    bus.subscribe(heard.append)
    return Rig(kernel.counted("cli", count), kernel.MEMORY, bus=bus).run() / count


def _asked(sizes: Sizes) -> float:
    """What it costs an exit to find that nobody listens: it looks whether there are any listeners, and then to what.

    A loop that does nothing is subtracted.
    """
    listeners, count = EventBus().subscribers, sizes.of(200_000, 50_000)
    start = time.perf_counter()
    for _ in range(count):
        if listeners:
            raise AssertionError
    middle = time.perf_counter()
    for _ in range(count):
        pass
    return max(2 * middle - start - time.perf_counter(), 1e-9) / count


def rows() -> list[Row]:
    no_qemu = "" if yardsticks.QEMU else "qemu-system-i386 isn't installed"
    return [
        Row("direct-call", "direct: ring-3 int 0x80 and back", "Y", 1.0, _direct_call, Y),
        Row("direct-call-qemu", "direct: ring-3 int 0x80 and back", "x QEMU's time", 1.3, _direct_call, _qemu_call,
            missing=no_qemu),
        Row("direct-call-naive", "direct: ring-3 int 0x80 and back", "x faster than naive", 100, _direct_call,
            _naive_call, at_least=True),
        Row("cli", "mirrored: one trapped cli, decided in Python", "Y", 3, trapped("cli", asks=True), Y),
        Row("pushf", "mirrored: one pushf and popf", "Y", 6, trapped("pushfd\npopfd"), Y),
        Row("call", "mirrored: int 0x80 reflected, and its iret", "Y", 8, _reflected, Y),
        Row("call-naive", "mirrored: int 0x80 reflected, and its iret", "x faster than naive", 20, _reflected,
            _naive_call, at_least=True),
        Row("hidden", "mirrored: a page fault that only the mirror lacks", "Y", 4, _hidden, Y),
        Row("switch", "decouple + recouple, all settings", "Y", 6, _switch, Y),
        Row("switch-naive", "decouple + recouple, all settings", "x faster than naive", 40, _switch, _naive_switch,
            at_least=True),
        Row("function", "a host function: one character, without the host's part", "Y", 40, _function, Y),
        Row("events", "to find that nobody listens, of a trapped cli", "of it", 0.03, _asked,
            trapped("cli", asks=True)),
    ]  # fmt: skip
