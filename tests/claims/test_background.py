"""The background of WO 02/50664 and its figure 1: what an exception costs when it has to go through the host.

Counted on the processor, instruction by instruction, with one guest under each plan; see guests/compare.asm.
"""

from __future__ import annotations

from functools import cache

import pytest

from hvproto.bundled import kernel_path
from hvproto.hypervisor.compare import EVENTS, PLANS, Way, compare
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import Session
from hvproto.images.load import load_image


@cache
def ways(engine: str | None = None) -> list[Way]:
    return compare(engine=engine)


def way(plan: str, event: str) -> Way:
    (found,) = (each for each in ways() if (each.plan, each.event) == (plan, event))
    return found


@pytest.mark.parametrize("event", list(EVENTS.values()))
def test_the_way_through_the_host_is_the_long_one(event: str) -> None:
    application, mirrored, direct = (way(plan, event) for plan in PLANS)
    assert application.both.instructions > 300 > 30 > mirrored.both.instructions >= direct.both.instructions
    assert application.both.ring_changes > mirrored.both.ring_changes
    assert application.both.decisions > mirrored.both.decisions > direct.both.decisions == 0
    # In `application` all of it is the host's: its kernel and its process. In the others the host has no part.
    assert application.there.host == application.there.instructions > 100
    assert mirrored.both.host == direct.both.host == 0
    # In `direct` nothing at all stands between the program and the guest's handler.
    assert (direct.there.instructions, direct.there.ring_changes) == (0, 1)
    assert (direct.back.ring_changes, direct.both.hypervisor, direct.both.table_loads) == (1, 0, 0)


@pytest.mark.parametrize("event", ["divide error", "page fault", "system call"])
def test_an_exception_of_a_mirrored_guest_enters_a_stub_of_the_region(event: str) -> None:
    mirrored, direct = way("mirrored", event).both, way("direct", event).both
    assert mirrored.hypervisor > 0 and mirrored.instructions > direct.instructions
    assert mirrored.couplings == 0  # and the host stays decoupled


def test_the_counts_are_the_same_again_and_on_the_other_engine(both_engines: tuple[str, str]) -> None:
    assert compare(engine=both_engines[0]) == ways(both_engines[0])
    others = ways(both_engines[1])
    for one, other in zip(ways(both_engines[0]), others, strict=True):
        if one.plan == "application":
            assert one == other


def test_the_exceptions_of_the_guest_are_the_hosts_to_count() -> None:
    """The host's kernel counts divide errors of its programs: five under figure 1, none where it is decoupled."""
    host = load_image(str(kernel_path("host")))
    counted = {}
    for plan in PLANS:
        session = Session(host, [load_image(str(kernel_path("compare")))], Plan.parse(plan))
        assert session.run() == 0
        at = host.symbols["divide_errors"]
        counted[plan] = int.from_bytes(session.machine.ram.view[at : at + 4], "little")
    assert counted == {"application": 5, "mirrored": 0, "direct": 0}
