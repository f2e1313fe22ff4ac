"""Guests that end badly: a named error, an exit status, and a host that goes on to its own clean end."""

from __future__ import annotations

import pytest

from hvproto.bundled import kernel_path
from hvproto.errors import LimitReached, NoMemory, NoRoom, RunError, TripleFault, Unsupported, World
from hvproto.events import Event, EventBus, Shutdown
from hvproto.hypervisor.plan import Plan
from hvproto.hypervisor.session import GuestNeverRan, Session
from hvproto.images.assembly import assemble_text
from hvproto.images.image import Image
from hvproto.images.load import load_image

PAGING = """
    mov edi, 0x200000                   ; 4 MiB one to one, with large pages
    mov ecx, 1024
    xor eax, eax
    rep stosd
    mov dword ptr [0x200000], 0x83
    mov eax, 0x200000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""
# Longer than a tick of the host's, so that its other process gets the processor at all.
BUSY = "mov ecx, 250000\n2: dec ecx\njnz 2b\n"


def kernel(body: str) -> Image:
    return assemble_text(f".origin 0x100000\nstart: cli\nmov esp, 0x180000\n{BUSY}{body}")


class Run:
    """A guest under the bundled host, to its end."""

    def __init__(self, image: Image, plan: str = "mirrored", limit: int | None = 50_000_000) -> None:
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.session = Session(load_image(str(kernel_path("host"))), [image], Plan.parse(plan), bus=bus)
        self.error: RunError | None = None
        self.status: int | None = None
        try:
            self.status = self.session.run(limit)
        except RunError as error:
            self.error = error
        self.said = self.session.machine.debug_output.decode()

    def check_the_host_ended_well(self) -> None:
        assert "host: ticks=" in self.said
        ticks = int(self.said.split("ticks=")[1].split()[0])
        assert ticks == self.session.machine.board.pit.raised
        assert int(self.said.split("worker=")[1].split()[0]) > 0, "the host's other process stood still"
        assert isinstance(self.events[-1], Shutdown)


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


@pytest.mark.parametrize("access, kind", [
    ("mov eax, [0x400000]", "read"), ("mov dword ptr [0x400010], 1", "write"), ("mov eax, 0x400020\njmp eax", "fetch"),
    ("invlpg [0x400000]\nlidt [0x400030]", "read"), ("mov esp, 0x400100\npushf", "write"),
])  # fmt: skip
def test_memory_that_is_not_there(access: str, kind: str) -> None:
    body = PAGING + "mov dword ptr [0x200004], 0x80000083\nhere:\n" + access + "\nhlt"
    image = kernel(body)
    run = Run(image)
    assert isinstance(run.error, NoMemory) and run.error.access == kind
    assert 0x8000_0000 <= run.error.physical < 0x8000_0200
    assert run.error.where.world is World.GUEST
    assert kind == "fetch" or image.symbols["here"] <= run.error.where.eip < image.symbols["here"] + 20
    run.check_the_host_ended_well()


@pytest.mark.parametrize("body, words", [
    ("mov eax, 0x20\nlldt ax", "LLDT"), ("mov eax, cr0\nand eax, -2\nmov cr0, eax", "protected mode"),
    ("mov ecx, 0xc0000080\nmov eax, 0x100\nxor edx, edx\nwrmsr", "long mode"),
    ("mov eax, 1\nmov dr7, eax", "DR7"), ("push 0\npush 0\npush 0\npush 0\npush 0x100\npush 0\npush 0x20002\npush 0x8\npush 0\niret", "virtual-8086"),
    ("call 0x28:0", "far transfer"),
])  # fmt: skip
def test_what_is_not_built_is_said_by_name(body: str, words: str) -> None:
    tables = (
        "lgdt [pointer]\n"
        + body
        + """
    hlt
    .align 8
    gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0, 0x0000820010000fff, 0x00008c0000080000
    pointer:
        .word 47
        .long gdt
    """
    )
    run = Run(kernel(tables))
    assert isinstance(run.error, Unsupported) and words in run.error.reason
    assert run.error.exit_status == 1
    run.check_the_host_ended_well()


def test_a_guest_that_leaves_no_room() -> None:
    body = PAGING.replace(
        "mov dword ptr [0x200000], 0x83",
        "mov edi, 0x200000\nmov eax, 0x80000083\nmov ecx, 1024\nrep stosd\nmov dword ptr [0x200000], 0x83",
    )
    run = Run(kernel(body + "hlt"))
    assert isinstance(run.error, NoRoom)
    assert run.error.pages_sought == 5 and run.error.pages_found == 0
    run.check_the_host_ended_well()


def test_a_host_that_never_enters_its_guest() -> None:
    session = Session(assemble_text(".origin 0x2000000\nhlt"), [kernel("hlt")], Plan.parse("mirrored"))
    with pytest.raises(GuestNeverRan):
        session.run(1_000_000)


@pytest.mark.parametrize("change, words", [
    ("mov dword ptr [0x2100000], 0", "magic"), ("mov dword ptr [0x2100004], 2", "version"),
    ("mov dword ptr [0x2100008], 7", "guest 7"), ("mov dword ptr [0x2100010], 0x1001", "whole pages"),
    ("mov dword ptr [0x2100010], 0", "whole pages"), ("mov dword ptr [0x210000c], 0xff000000", "isn't mapped"),
    ("mov eax, 0x2100004", "page-aligned"), ("mov eax, 0xff000000", "isn't mapped"),
])  # fmt: skip
def test_a_bad_run_block(change: str, words: str) -> None:
    host = f"""
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
    """
    session = Session(assemble_text(host), [kernel("hlt")], Plan.parse("mirrored"))
    with pytest.raises(RunError, match=words) as caught:
        session.run(1_000_000)
    assert caught.value.where.world is World.HOST
