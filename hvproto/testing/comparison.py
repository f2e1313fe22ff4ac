"""Runs against each other: the same twice, and bare against mirrored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvproto.bundled import DEFAULT_HOST, kernel_path
from hvproto.errors import LimitReached, RunError
from hvproto.events import Event
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.testing.bare import BareMachine
from hvproto.testing.hv import Hv

_PAGE = 4096
BEFORE = 3
"""Events that are shown before the first difference."""

Run = Hv | Sequence[Event]


def assert_same_run(a: Run, b: Run) -> None:
    """Two runs did the same, event for event; runs of `Hv` also printed the same and ended alike.

    Those that haven't ended are run to their end first. Raises AssertionError with the first difference.
    """
    for run in (a, b):
        if isinstance(run, Hv) and not run.ended:
            run.run()
    one, other = (run.events if isinstance(run, Hv) else run for run in (a, b))
    for index in range(max(len(one), len(other))):
        left = one[index] if index < len(one) else None
        right = other[index] if index < len(other) else None
        if left != right:
            raise AssertionError(_difference(one, index, left, right))
    if isinstance(a, Hv) and isinstance(b, Hv):
        assert a.output == b.output, first_difference(a.output.encode("latin-1"), b.output.encode("latin-1"))
        assert a.status == b.status, f"exit status {a.status} and {b.status}"


def _difference(events: Sequence[Event], index: int, left: Event | None, right: Event | None) -> str:
    lines = [f"the runs differ at event {index}:"]
    lines += [f"      {event.to_json()}" for event in events[max(index - BEFORE, 0) : index]]
    lines += [
        f"    {mark} {event.to_json() if event else '(the run is over)'}" for mark, event in (("a", left), ("b", right))
    ]
    if left is not None and right is not None and type(left) is type(right):
        names = [name for name in left.__dataclass_fields__ if getattr(left, name) != getattr(right, name)]
        lines.append(f"    different: {', '.join(names)}")
    return "\n".join(lines)


def first_difference(a: bytes, b: bytes) -> str:
    """Where two outputs part, with what stands around.

    >>> print(first_difference(b"one two", b"one too"))
    the outputs differ at byte 5:
        a b'one two'
        b b'one too'
    """
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    around = slice(max(at - 20, 0), at + 20)
    return f"the outputs differ at byte {at}:\n    a {a[around]!r}\n    b {b[around]!r}"


class Difference(AssertionError):
    """Two runs that should be alike aren't; ``kind`` is "error", "output", "status", "memory" or "host"."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: with an exit status, or by an error."""

    status: int | None
    error: Exception | None

    @classmethod
    def of(cls, run: Callable[[], int]) -> Ending:
        """Run it. Errors of the run's and failed assertions are endings; what else it raises, it raises."""
        try:
            return cls(run(), None)
        except (RunError, AssertionError) as error:
            return cls(None, error)

    @property
    def at_limit(self) -> bool:
        return isinstance(self.error, LimitReached)

    def __str__(self) -> str:
        return f"status {self.status}" if self.error is None else type(self.error).__name__


@dataclass(frozen=True, slots=True)
class Alone:
    """What a kernel came to on the bare machine: the control experiment, to be kept and compared with many times."""

    ending: Ending
    output: str
    size: int
    """Of its memory, in bytes."""
    pages: Mapping[int, bytes]
    """The pages that aren't empty, by GPA."""

    @property
    def memory(self) -> bytes:
        memory = bytearray(self.size)
        for at, page in self.pages.items():
            memory[at : at + len(page)] = page
        return bytes(memory)


def run_alone(
    guest: Image, size: int, *, engine: str | None = None, limit: int | None = None, cycles: int | None = None
) -> Alone:
    """Run a kernel on a bare machine with ``size`` bytes of memory; ``limit`` and ``cycles`` are those of its `run`."""
    bare = BareMachine(size, engine=engine)
    bare.load(guest)
    ending = Ending.of(lambda: bare.run(limit, cycles=cycles))
    words = np.frombuffer(bare.ram.view, np.uint64).reshape(-1, _PAGE // 8)
    used = np.flatnonzero(words.any(axis=1)).tolist()
    pages = {at * _PAGE: words[at].tobytes() for at in used}
    return Alone(ending, bare.output, size, pages)


def assert_transparent(
    guest: Image,
    plan: str = "mirrored",
    *,
    host: Image | None = None,
    engine: str | None = None,
    limit: int | None = None,
    ignore: Sequence[range] = (),
) -> None:
    """A guest does the same alone on the bare machine and under a plan: output, exit status, and every byte of memory.

    ``ignore`` are ranges of GPAs that may differ: what depends on time. ``limit`` is in instructions of each run, as
    that of `Hv`. Raises AssertionError with the first difference, and what the runs raise unless both end with the same
    kind of error.
    """
    hosted = Hv(host or load_image(kernel_path(DEFAULT_HOST)), guest, plan, engine=engine, limit=limit)
    ending = Ending.of(hosted.run)
    assert_as_alone(hosted, ending, run_alone(guest, hosted.guest.memory.size, engine=engine, limit=limit), ignore)


def assert_as_alone(hosted: Hv, ending: Ending, alone: Alone, ignore: Sequence[range] = ()) -> None:
    """A run that has ended so came to the same as its guest alone; for what, see `assert_transparent`.

    If the bare machine has reached its limit, only the output is compared, as far as both have come: where in its
    course a guest is then, is a matter of time. Raises Difference.
    """
    if alone.ending.at_limit:
        length = min(len(alone.output), len(hosted.output))
        _compare_output(alone.output[:length], hosted.output[:length])
        return
    error, bare_error = ending.error, alone.ending.error
    if type(error) is not type(bare_error):
        plan = hosted.session.hypervisor.plan.name
        raise Difference("error", f"alone: {bare_error or 'no error'}\n{plan}: {error or 'no error'}") from (
            error or bare_error
        )
    _compare_output(alone.output, hosted.output)
    if alone.ending.status != ending.status:
        plan = hosted.session.hypervisor.plan.name
        raise Difference("status", f"exit status {alone.ending.status} alone, {ending.status} under {plan}")
    own = hosted.guest.memory.read(0, alone.size)
    assert own is not None
    _compare_memory(alone.memory, own, hosted.image, ignore)


def _compare_output(alone: str, hosted: str) -> None:
    if alone != hosted:
        raise Difference("output", first_difference(alone.encode("latin-1"), hosted.encode("latin-1")))


def _compare_memory(alone: bytes, hosted: bytes, image: Image, ignore: Sequence[range]) -> None:
    if alone == hosted:
        return
    for base in range(0, len(alone), _PAGE):
        if alone[base : base + _PAGE] == hosted[base : base + _PAGE]:
            continue
        for at in range(base, base + _PAGE):
            if alone[at] != hosted[at] and not any(at in span for span in ignore):
                name = image.symbols.name_at(at)
                place = f"GPA {at:#x}" + (f" ({name})" if name else "")
                start = at & ~7
                raise Difference(
                    "memory",
                    f"memory differs at {place}:\n    alone  {alone[start : start + 16].hex(' ')}\n"
                    f"    hosted {hosted[start : start + 16].hex(' ')}",
                )
