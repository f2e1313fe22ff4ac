"""Relocation schedules: the region goes where and when they say, and the same moves can be made again by hand."""

from __future__ import annotations

import pytest

from hvproto.errors import BadInput
from hvproto.images.image import Image
from hvproto.testing import Exit, Hv, Relocated
from hvproto.testing.relocate import Relocator, parse_schedule, spelled

BODY = '.include "hvproto/assert.asm"\nmov ecx, 20\n1: sidt [0x170000]\nmov [0x170010 + 8 * ecx], eax\nloop 1b\nDONE'


@pytest.fixture
def guest(assemble) -> Image:  # type: ignore[no-untyped-def]
    return assemble.kernel(BODY)


def moved(host: Image, guest: Image, text: str, seed: int = 0) -> tuple[Hv, Relocator]:
    hv, relocator = Hv(host, guest), Relocator(parse_schedule(text, seed))
    hv.on(Exit)(relocator)
    assert hv.run() == 0
    assert [event.new for event in hv.events.of(Relocated)] == list(relocator.made.values())
    return hv, relocator


@pytest.mark.paging("2-level", "4-level")
def test_a_seed_decides_when_and_where(host: Image, guest: Image) -> None:
    first, again, other = (moved(host, guest, "random 3", seed)[1].made for seed in (1, 1, 2))
    assert first == again != other and len(first) > 3
    assert len({place >> 24 for place in first.values()}) > 2, "it stays in one corner"


def test_moves_made_can_be_made_again_one_by_one(host: Image, guest: Image) -> None:
    once, relocator = moved(host, guest, "random 2", 7)
    twice, _ = moved(host, guest, spelled(relocator.made))
    assert list(once.events) == list(twice.events)
    kept = dict(list(relocator.made.items())[:2])
    assert moved(host, guest, spelled(kept))[1].made == kept


def test_a_place_that_is_not_free_is_left_out(host: Image, guest: Image) -> None:
    assert moved(host, guest, "at 2=0x0,3=0xfffff000,5=0xff000000")[1].made == {5: 0xFF000000}


@pytest.mark.parametrize("text", ["", "every", "every 0", "every -1", "random", "at", "at 3", "at 3=4", "at 0=0x1000"])
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(BadInput, match="is no relocation schedule: write"):
        parse_schedule(text)
