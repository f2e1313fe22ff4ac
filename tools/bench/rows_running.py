"""Rows of code that runs without being stopped: a mirrored guest against plain Unicorn and against QEMU."""

from __future__ import annotations

from functools import partial

from bench import kernel, yardsticks
from bench.measure import Row, Sizes
from bench.rig import Rig

NO_QEMU = "" if yardsticks.QEMU else "qemu-system-i386 isn't installed"
SHORT = 4
"""Quick runs do so many times less."""
TRIES = 3
"""The shortest counts: these samples are short, and a machine has other work now and then."""
MIRRORED, IN_QEMU = 8, 40
"""How many times more than plain Unicorn a mirrored guest does in about its time; and QEMU, to be more than its start
varies by."""


def _load(name: str, sizes: Sizes, times: int = 1) -> tuple[str, int]:
    code, count = kernel.LOADS[name]
    return code, times * sizes.of(count, count // SHORT)


def mirrored(name: str, sizes: Sizes) -> float:
    """Seconds for one. A run less one that does next to nothing: its kernel's start is no part of the load."""
    code, count = _load(name, sizes, MIRRORED)
    times = [min(Rig(kernel.counted(code, number), kernel.MEMORY).run() for _ in range(TRIES)) for number in (1, count)]
    return max(times[1] - times[0], 1e-4) / count


def raw(name: str, sizes: Sizes) -> float:
    code, count = _load(name, sizes)
    return min(yardsticks.raw(code, count) for _ in range(TRIES)) / count


def qemu(name: str, sizes: Sizes) -> float:
    code, count = _load(name, sizes, IN_QEMU)
    times = [yardsticks.in_qemu(kernel.counted(code, number)) for number in (1, count)]
    return max(times[1] - times[0], 1e-4) / count


def rows() -> list[Row]:
    found = [
        Row("alu", "mirrored guest, ALU loop", "x raw", 0.95, partial(mirrored, "ALU loop"), partial(raw, "ALU loop"),
            at_least=True),
    ]  # fmt: skip
    for name in ("memcpy", "calls", "sieve"):
        found.append(
            Row(name, f"mirrored guest, {name}", "x raw", 4, partial(mirrored, name), partial(raw, name), at_least=True)
        )
        found.append(
            Row(f"{name}-qemu", f"mirrored guest, {name}", "x QEMU's time", 3.2, partial(mirrored, name),
                partial(qemu, name), missing=NO_QEMU)
        )  # fmt: skip
    return found
