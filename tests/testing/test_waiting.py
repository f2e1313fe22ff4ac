"""Waiting for events, and runs against each other: on the bundled guest, which moves the region about."""

from __future__ import annotations

from typing import Any

import pytest

from hvproto.errors import BadInput, LimitReached, World
from hvproto.events import GuestHalted
from hvproto.images.image import Image
from hvproto.processor.settings import Setting
from hvproto.testing import (
    Assembler,
    BareMachine,
    Conflict,
    Decoupled,
    Hv,
    NotSeen,
    Recoupled,
    Relocated,
    assert_same_run,
    assert_transparent,
)

COUNTING = """
.include "hvproto/assert.asm"
        mov ecx, 30000
count:  dec ecx
        jnz count
        SYNC 1
        mov dword ptr [0x170000], 7
        DONE
"""


def test_it_stands_where_the_event_was(hv: Hv, events: Any, save_area: Any) -> None:
    assert dict(save_area) == {}
    with hv.wait_for(Relocated) as seen:
        pass
    assert [event.kind for event in seen] == ["Relocated"] and events.of(Relocated) == seen
    assert hv.guest.region.base == seen[0].new  # type: ignore[attr-defined]
    assert isinstance(events[-1], Recoupled) and hv.machine.world is World.HOST
    assert save_area[Setting.IDTR] == hv.machine.processor.idtr, "what was saved is what the host has again"
    with hv.wait_for(Relocated, where=lambda event: event.new < seen[0].new) as later:
        pass
    assert later[0].at > seen[0].at


def test_stopping_changes_nothing(hv: Hv) -> None:
    straight = hv.again()
    assert straight.run() == 0
    for _ in range(20):
        with hv.wait_for(Relocated, Conflict):
            pass
    assert hv.run() == 0
    assert hv.output == straight.output
    ticks = hv.session.machine.images[World.HOST].symbols["ticks"]
    counted = int.from_bytes(hv.machine.ram.view[ticks : ticks + 4], "little")
    assert counted == hv.machine.board.pit.raised, "not a tick of the host's was lost"


def test_what_never_comes(hv: Hv) -> None:
    reason = r"GuestHalted: seen 0 of 1 times before 300,000 instructions passed; .*Decoupled \d"
    with pytest.raises(NotSeen, match=reason), hv.wait_for(GuestHalted, limit=300_000):
        pass
    assert 300_000 <= hv.machine.processor.instructions < 300_100
    assert hv.run() == 0, "it can go on"
    with pytest.raises(NotSeen, match="the run ended"), hv.wait_for(Relocated):
        pass


def test_what_can_never_be_is_said_at_once(hv: Hv) -> None:
    with pytest.raises(BadInput, match="at least one instruction"), hv.wait_for(GuestHalted, limit=0):
        pass
    with pytest.raises(BadInput, match="no symbol 'nowhere'"):
        hv.read("nowhere")


def test_what_the_block_does_is_seen(hv: Hv) -> None:
    with hv.wait_for(GuestHalted) as seen:
        assert hv.run() == 0
    assert len(seen) == 1


@pytest.mark.limit(250_000)
def test_the_marker_limit(hv: Hv) -> None:
    with pytest.raises(LimitReached, match="after the limit of 250,000 instructions") as caught:
        hv.run()
    assert (caught.value.limit, caught.value.unit) == (250_000, "instructions")
    assert 250_000 <= hv.machine.processor.instructions < 250_100


@pytest.mark.limit(250_000)
def test_the_marker_limit_on_a_bare_machine(machine: BareMachine, assemble: Assembler) -> None:
    with pytest.raises(LimitReached):
        machine.execute(assemble("start: jmp start"))
    assert machine.processor.instructions == 250_000


def test_before_the_first_entry(hv: Hv) -> None:
    with pytest.raises(BadInput, match="hasn't entered"):
        _ = hv.guest


def test_the_same_run(hv: Hv) -> None:
    assert_same_run(hv, hv.again())


def test_the_first_difference(host: Image, assemble: Assembler) -> None:
    one = Hv(host, assemble.kernel(COUNTING))
    other = Hv(host, assemble.kernel(COUNTING.replace("30000", "30001")))
    with pytest.raises(
        AssertionError, match=r"differ at event \d+:\n +\{.*\n(.*\n)*    a .*\n    b .*\n    different: at"
    ):
        assert_same_run(one, other)


def test_transparent(assemble: Assembler) -> None:
    assert_transparent(assemble.kernel(COUNTING))


def test_not_transparent(assemble: Assembler) -> None:
    """A kernel that leaves the time in its memory isn't the same twice."""
    timed = COUNTING.replace("mov dword ptr [0x170000], 7", "rdtsc\nstamp: mov [0x170000], eax")
    with pytest.raises(AssertionError, match=r"memory differs at GPA 0x17000\d"):
        assert_transparent(assemble.kernel(timed))
    assert_transparent(assemble.kernel(timed), ignore=[range(0x170000, 0x170004)])


def test_a_relocation_changes_nothing(host: Image, guest: Image) -> None:
    still, moved = Hv(host, guest), Hv(host, guest, relocate_every=50)
    assert still.run() == moved.run() == 0
    assert still.output == moved.output
    assert len(moved.events.of(Relocated)) > len(still.events.of(Relocated)) + 20
    assert len(moved.events.of(Decoupled)) > 0
