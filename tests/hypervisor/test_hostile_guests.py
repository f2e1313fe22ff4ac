"""The bundled hostile guests, alone and as guests: the same output and the same end, and nothing reaches the host."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from hvproto.errors import LimitReached, NoMemory, RunError, TripleFault, Unsupported
from hvproto.images.image import Image
from hvproto.images.load import load_image
from tests.hypervisor.stage import MEMORY, Bare, Stage, bare
from tests.support.command import ROOT

GUESTS = sorted((ROOT / "guests" / "hostile").glob("*.asm"))
LIMIT, LIMIT_OF_RANDOM = 4_000_000, 300_000
"""Cycles; some of the random programs go round in circles for ever."""
FORESEEN = (TripleFault, NoMemory, Unsupported, LimitReached)
RANDOM = {path.stem for path in GUESTS if "random" in path.stem}
"""Code that may do anything, write to itself among other things: it must harm nobody; how it ends is its own affair."""


@cache
def image_of(path: Path) -> Image:
    return load_image(path)


@cache
def alone(path: Path) -> Bare:
    return bare(image_of(path), limit=limit_of(path))


def limit_of(path: Path) -> int:
    return LIMIT_OF_RANDOM if path.stem in RANDOM else LIMIT


def test_there_are_enough() -> None:
    assert len(GUESTS) >= 30
    for path in GUESTS:
        first = path.read_text().splitlines()[0]
        assert first.startswith("; ") and len(first) > 30, f"{path.name} doesn't say what it does"


@pytest.mark.parametrize("path", GUESTS, ids=lambda path: path.stem)
def test_a_hostile_guest_harms_nobody(path: Path, engine: str) -> None:
    stage = Stage(image_of(path), engine)
    error: RunError | None = None
    try:
        stage.run(limit_of(path))
    except LimitReached as reached:
        error = reached
    error = error or stage.error
    stage.check_host_untouched()
    assert stage.machine.debug_output == stage.machine.serial_output == b"", "a port of the guest's reached the host"
    assert stage.machine.exit_value is None
    assert error is None or isinstance(error, FORESEEN), error
    if path.stem in RANDOM:
        return
    expected = alone(path)
    assert (stage.guest.status, type(error)) == (expected.status, type(expected.error)), (error, expected.error)
    assert stage.output.decode("latin-1") == expected.machine.debug_output.decode("latin-1")
    if isinstance(error, LimitReached):
        return  # where in its circle it is, is a matter of time
    ours, theirs = stage.guest_ram(), expected.guest_ram()
    assert [hex(at) for at in range(0, MEMORY, 4) if ours[at : at + 4] != theirs[at : at + 4]][:8] == []
