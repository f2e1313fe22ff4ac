"""Guests that end badly: a named error, an exit status, and a host that goes on to its own clean end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hvproto.addresses import GVA
from hvproto.bundled import kernel_path
from hvproto.errors import LimitReached, NoMemory, NoRoom, RunError, TripleFault, Unsupported, World
from hvproto.hypervisor.free_space import FreeSpace
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.relocation import Fixed, Move, RelocationPolicy, SuggestionRefused
from hvproto.hypervisor.session import GuestNeverRan, Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image
from hvproto.machine.ram import MIB
from tests.hypervisor.hosted import PAGING, Run, kernel
from tests.hypervisor.stage import bare


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_a_triple_fault(plan: str) -> None:
    image = kernel("lidt [nowhere]\nint3\n.align 8\nnowhere: .word 0\n.long 0")
    run = Run(image, plan)
    assert isinstance(run.error, TripleFault) and run.error.where.world is World.GUEST
    assert [fault.vector for fault in run.error.faults] == [13, 13] or len(run.error.faults) == 3
    assert image.symbols["start"] <= run.error.where.eip < image.symbols["nowhere"]
    assert run.error.exit_status == 1 and "guest at EIP" in str(run.error)
    assert run.session.guests[0].error is run.error
    run.check_the_host_ended_well()


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
@pytest.mark.parametrize("value", [0, 1, 0x15, 0x7F])
def test_the_debug_exit_port(plan: str, value: int) -> None:
    run = Run(kernel(f"mov al, {value}\nout 0xf4, al\n1: jmp 1b"), plan)
    assert run.status == (2 * value + 1) & 0xFF and run.error is None
    run.check_the_host_ended_well()


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_a_halt_without_interrupts(plan: str) -> None:
    run = Run(kernel("hlt\nud2"), plan)
    assert run.status == 0 and run.error is None
    run.check_the_host_ended_well()


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_a_guest_that_never_ends(plan: str) -> None:
    run = Run(kernel("1: jmp 1b"), plan, limit=3_000_000)
    assert isinstance(run.error, LimitReached) and run.error.limit == 3_000_000
    assert run.session.machine.board.pit.raised > 0


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
@pytest.mark.parametrize("way", ["mov eax, 0x400020\njmp eax", "push 0x400020\nret"])
def test_code_where_there_is_no_memory(plan: str, way: str) -> None:
    image = kernel(f"{PAGING}mov dword ptr [0x200004], 0x80000083\n{way}")
    run, alone = Run(image, plan), bare(image, memory=16 * MIB, limit=1_000_000).error
    assert isinstance(run.error, NoMemory) and isinstance(alone, NoMemory)
    assert run.error.access == alone.access == "instruction fetch"
    assert run.error.physical == alone.physical == 0x8000_0020
    assert run.error.where.eip == alone.where.eip == 0x40_0020
    assert run.error.where.world is World.GUEST
    run.check_the_host_ended_well()


@pytest.mark.parametrize("plan", ["mirrored", "direct"])
def test_what_is_not_built_is_said_by_name(plan: str) -> None:
    image = kernel("mov ecx, 0x1b\nmov eax, 0x100900\nxor edx, edx\nhere: wrmsr\nhlt")  # the local APIC over RAM
    run, alone = Run(image, plan), bare(image, memory=16 * MIB, limit=1_000_000).error
    assert isinstance(run.error, Unsupported) and isinstance(alone, Unsupported)
    assert run.error.reason == alone.reason and "IA32_APIC_BASE is set to 0x100900" in alone.reason
    assert run.error.where.world is World.GUEST and run.error.where.eip == alone.where.eip == image.symbols["here"]
    assert run.error.exit_status == 1
    run.check_the_host_ended_well()


def test_a_guest_that_leaves_no_room() -> None:
    body = PAGING.replace(
        "mov dword ptr [0x200000], 0x83",
        "mov edi, 0x200000\nmov eax, 0x80000083\nmov ecx, 1024\nrep stosd\nmov dword ptr [0x200000], 0x83",
    )
    run = Run(kernel(body + "hlt"))
    assert isinstance(run.error, NoRoom)
    assert run.error.pages_sought == 6 and run.error.pages_found == 0
    assert run.error.where.world is World.GUEST
    run.check_the_host_ended_well()


def test_a_host_that_never_enters_its_guest() -> None:
    session = Session(assemble_text(".origin 0x2000000\nhlt"), [kernel("hlt")], Plan.parse("mirrored"))
    with pytest.raises(GuestNeverRan):
        session.run(1_000_000)


def host_with_run_block(change: str) -> Image:
    """A host without paging that knocks at the door, once it has made this change to a good run block."""
    return assemble_text(f"""
    .origin 0x2000000
        mov eax, 0x2100000
        mov dword ptr [eax], 0x42525648
        mov dword ptr [eax + 4], 1
        mov dword ptr [eax + 8], 0
        mov dword ptr [eax + 12], 0
        mov dword ptr [eax + 16], 0x200000
        mov dword ptr [eax + 20], 0x1000000
        mov dword ptr [eax + 24], 0x200000
        {change}
        mov edx, 0x4856
        out dx, eax
        jmp 1f
    1:  hlt
    """)


@pytest.mark.parametrize("change, words", [
    ("mov dword ptr [0x2100000], 0", "magic"), ("mov dword ptr [0x2100004], 2", "version"),
    ("mov dword ptr [0x2100008], 7", "guest 7"), ("mov dword ptr [0x2100010], 0x1001", "whole pages"),
    ("mov dword ptr [0x2100010], 0", "whole pages"), ("mov dword ptr [0x210000c], 0xff000000", "isn't mapped"),
    ("mov eax, 0x2100004", "page-aligned"), ("mov eax, 0xff000000", "isn't mapped"),
])  # fmt: skip
def test_a_bad_run_block(change: str, words: str) -> None:
    session = Session(host_with_run_block(change), [kernel("hlt")], Plan.parse("mirrored"))
    with pytest.raises(RunError, match=words) as caught:
        session.run(1_000_000)
    assert caught.value.where.world is World.HOST


def test_a_guest_whose_memory_is_elsewhere_cannot_run_directly() -> None:
    host = host_with_run_block("mov dword ptr [eax + 12], 0x400000")
    session = Session(host, [kernel("hlt")], Plan.parse("direct"))
    with pytest.raises(Unsupported, match="plan direct") as caught:
        session.run(1_000_000)
    assert caught.value.exit_status == 1 and "mirrored" in str(caught.value)
    # Mirrored, it can: the same kernel, loaded where the host says, comes to its HLT.
    session = Session(host, [kernel("hlt")], Plan.parse("mirrored"))
    assert session.run(3_000_000) == 0
    assert session.guests[0].status == 0
    assert bytes(session.machine.ram.view[0x50_0000:0x50_0001]) == b"\xfa"


def region_of_a_run(policy: RelocationPolicy) -> Session:
    """The bundled host with a kernel that maps 4 MiB at 0x80000000 and writes there."""
    body = f"{PAGING}mov dword ptr [0x200800], 0x83\nmov dword ptr [0x80180000], 7\nhlt"
    return Session(load_image(str(kernel_path("host"))), [kernel(body)], Plan.parse("mirrored"), policy=policy)


def test_a_region_that_may_not_move() -> None:
    for place, free in ((0x8000_0000, 0), (0x7FFF_C000, 4)):
        session = region_of_a_run(Fixed(GVA(place)))
        with pytest.raises(NoRoom) as caught:
            session.run(50_000_000)
        assert (caught.value.pages_sought, caught.value.pages_found) == (6, free)
    session = region_of_a_run(Fixed(GVA(0x7FFF_A000)))
    assert session.run(50_000_000) == 0
    assert session.guests[0].memory.read(0x18_0000, 4) == bytes([7, 0, 0, 0])


def test_a_policy_that_names_a_place_of_the_guests() -> None:
    class Stubborn:
        def suggest(self, space: FreeSpace, pages: int, history: Sequence[Move]) -> GVA:
            return GVA(0x8000_0000)

    session = region_of_a_run(Stubborn())
    with pytest.raises(SuggestionRefused, match="Stubborn suggests 0x80000000"):
        session.run(50_000_000)


def test_what_was_printed_up_to_the_limit_is_there_wherever_the_text_is_then() -> None:
    """Waiting for company, on the way to the host, or in the host's driver."""
    image = kernel(
        "mov edi, 60\n1: mov ecx, 26\nmov al, 0x61\n2: out 0xe9, al\ninc al\nloop 2b\nmov al, 10\nout 0xe9, al\ndec edi\njnz 1b"
    )
    in_driver = 0
    for limit in range(2_000_000, 3_200_000, 61_000):
        session = Session(load_image(str(kernel_path("host"))), [image], Plan.parse("mirrored"))
        with pytest.raises(LimitReached):
            session.run(limit)
        guest = session.guests[0]
        before = bytes(guest.output)
        waited = guest.functions.has_text or guest.functions.waiting
        session.hypervisor.print_rest()
        printed = bytes(guest.output)
        assert (b"abcdefghijklmnopqrstuvwxyz\n" * 60).startswith(printed)
        in_driver += printed != before and not waited
        session.hypervisor.print_rest()
        assert bytes(guest.output) == printed, "once"
    assert in_driver > 2
