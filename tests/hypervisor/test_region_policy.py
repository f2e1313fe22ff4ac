"""Guests that leave the region little room, none, or not the place where it has to be."""

from __future__ import annotations

import pytest

from hvproto.addresses import GVA
from hvproto.errors import NoRoom, PlanError, RegionIsFixed, World
from hvproto.events import Relocated
from hvproto.hypervisor.guest import Leave
from hvproto.hypervisor.layout import FULL, SMALL
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import Fixed
from hvproto.images.assembly import assemble_text
from tests.hypervisor.lodger import Lodging, logging_kernel

GREEDY = """
        mov edi, 0x114000               ; everything is mapped, most of it to where there is no memory
        mov eax, 0x80000083
        mov ecx, 1024
        cld
        rep stosd
        mov edi, 0x115000               ; the first 4 MiB one to one, for all
        mov eax, 7
        mov ecx, 1024
1:      stosd
        add eax, 0x1000
        loop 1b
        mov dword ptr [0x114000], 0x115007
        mov edi, 0x116000               ; at 0x80000000 there are holes
        mov eax, 0x1a0003
        mov ecx, 1024
        rep stosd
        mov ecx, {free}
        mov edi, 0x116000 + 5 * 4
        xor eax, eax
        rep stosd
        mov dword ptr [0x114800], 0x116003
        mov eax, cr4
        or eax, 0x10
        mov cr4, eax
        mov eax, 0x114000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80010000
        mov cr0, eax
        sti
        cli
        mov dword ptr [0x80000000], 0x600d
        mov dword ptr [resume], offset over
fault:  mov eax, [{hole}]
over:   mov dword ptr [resume], 0
        int 0x30
        int3
        pushfd
        pop eax
        mov word ptr [0x17f000], 0x10
        mov fs, [0x17f000]
        mov dword ptr [0x116000 + 900 * 4], 0       ; another hole, and the first one is closed
        mov dword ptr [0x116000 + 5 * 4], 0x1a1003
        invlpg [0x80384000]
        invlpg [{hole}]
        mov dword ptr [{hole}], 0xcafe
        mov ebx, [0x1a1000]
        mov [result], ebx
        int 0x30
        mov al, 0x2a
        out 0xe9, al
"""
HOLE = 0x8000_5000


def greedy(engine: str, free: int, plan: str = "mirrored,region=shrink") -> Lodging:
    run = Lodging(engine, plan)
    run.add(assemble_text(logging_kernel(GREEDY.format(free=free, hole=HOLE))))
    return run


def test_a_guest_that_maps_all_but_one_page_runs_on(engine: str) -> None:
    run = greedy(engine, 1)
    assert run.guest.region.layout is FULL
    save_area = run.guest.save_area
    stay = run.run_to_end()
    assert (stay.leave, stay.status) == (Leave.HALTED, 0), stay.error
    assert run.guest.region.layout is SMALL and run.guest.region.base == 0x8038_4000
    assert run.words("result") == [0xCAFE] and run.printed == b"*"
    assert [vector for vector, _, _ in run.log] == [14, 48, 3, 48]
    assert run.log[0][1:] == (0, run.image.symbols["fault"]), "the region itself is no page of the guest's"
    moves = [(event.old, event.new, event.pages) for event in run.events if isinstance(event, Relocated)]
    assert [(new, pages) for _, new, pages in moves[-2:]] == [(HOLE, 1), (0x8038_4000, 1)]
    assert run.guest.save_area == save_area


def test_with_room_for_six_it_does_not_shrink(engine: str) -> None:
    run = greedy(engine, 6)
    while not any(isinstance(event, Relocated) for event in run.events):
        assert run.run(200).leave is Leave.TIME
    assert run.guest.region.layout is FULL and run.guest.region.base == HOLE
    stay = run.run_to_end()  # the guest takes one of the six
    assert stay.status == 0 and run.guest.region.layout is SMALL


@pytest.mark.parametrize("plan, free, sought, found", [
    ("mirrored", 0, 6, 0), ("mirrored", 1, 6, 1), ("mirrored", 5, 6, 5), ("mirrored,region=full", 5, 6, 5),
    ("mirrored,region=shrink", 0, 1, 0),
])  # fmt: skip
def test_no_room_says_how_much(plan: str, free: int, sought: int, found: int) -> None:
    run = greedy("native", free, plan)
    stay = run.run_to_end()
    error = stay.error
    assert stay.leave is Leave.FAILED and isinstance(error, NoRoom) and not isinstance(error, RegionIsFixed)
    assert (error.pages_sought, error.pages_found) == (sought, found)
    assert f"{sought} free pages sought, the largest hole has {found}" in str(error)
    assert error.where.world is World.GUEST


@pytest.mark.parametrize("plan", ["mirrored", "mirrored,region=shrink"])
def test_a_fixed_region_says_where(plan: str) -> None:
    run = Lodging("native", plan)
    run.hypervisor._policy = Fixed(GVA(HOLE))
    run.add(assemble_text(logging_kernel(GREEDY.format(free=0, hole=HOLE))))
    error = run.run_to_end().error
    assert isinstance(error, RegionIsFixed) and error.linear == HOLE and error.pages_found == 0
    assert f"fixed at {HOLE:#x}" in str(error) and error.where.world is World.GUEST


def test_the_plan_says_whether() -> None:
    assert Plan.parse("mirrored,REGION = Shrink").shrinks_region
    assert not Plan.parse("mirrored").shrinks_region and not Plan.parse("mirrored,region=full").shrinks_region
    with pytest.raises(PlanError, match="unknown region 'small'"):
        Plan.parse("mirrored,region=small")
