"""Runs against each other: the same twice, and bare against mirrored."""

from __future__ import annotations

from collections.abc import Sequence

from hvproto.bundled import DEFAULT_HOST, kernel_path
from hvproto.errors import RunError
from hvproto.events import Event
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.testing.bare import LIMIT, BareMachine
from hvproto.testing.hv import Hv

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


def assert_transparent(
    guest: Image,
    plan: str = "mirrored",
    *,
    host: Image | None = None,
    engine: str | None = None,
    limit: int = LIMIT,
    ignore: Sequence[range] = (),
) -> None:
    """A guest does the same alone on the bare machine and under a plan: output, exit status, and every byte of memory.

    ``ignore`` are ranges of GPAs that may differ: what depends on time. ``limit`` is in cycles of each run. Raises
    AssertionError with the first difference, and what the runs raise unless both end with the same kind of error.
    """
    hosted = Hv(host or load_image(kernel_path(DEFAULT_HOST)), guest, plan, engine=engine, limit=limit)
    status, error = _ending(hosted.run)
    memory = hosted.guest.memory
    bare = BareMachine(memory.size, engine=engine)
    bare.load(guest)
    bare_status, bare_error = _ending(lambda: bare.run(limit))
    if type(error) is not type(bare_error):
        raise AssertionError(f"alone: {bare_error or 'no error'}\n{plan}: {error or 'no error'}") from (
            error or bare_error
        )
    assert bare.output == hosted.output, first_difference(
        bare.output.encode("latin-1"), hosted.output.encode("latin-1")
    )
    assert bare_status == status, f"exit status {bare_status} alone, {status} under {plan}"
    own = memory.read(0, memory.size)
    assert own is not None
    _compare_memory(bytes(bare.ram.view), own, guest, ignore)


def _ending(run: object) -> tuple[int | None, Exception | None]:
    assert callable(run)
    try:
        return run(), None
    except (RunError, AssertionError) as error:
        return None, error


def _compare_memory(alone: bytes, hosted: bytes, image: Image, ignore: Sequence[range]) -> None:
    if alone == hosted:
        return
    page = 4096
    for base in range(0, len(alone), page):
        if alone[base : base + page] == hosted[base : base + page]:
            continue
        for at in range(base, base + page):
            if alone[at] != hosted[at] and not any(at in span for span in ignore):
                name = image.symbols.name_at(at)
                place = f"GPA {at:#x}" + (f" ({name})" if name else "")
                start = at & ~7
                raise AssertionError(
                    f"memory differs at {place}:\n    alone  {alone[start : start + 16].hex(' ')}\n"
                    f"    hosted {hosted[start : start + 16].hex(' ')}"
                )
