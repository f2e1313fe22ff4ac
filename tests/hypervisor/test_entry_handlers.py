"""Handlers of entries: called whenever a guest is about to go on, with its state at hand to be changed."""

from __future__ import annotations

from hvproto.errors import TripleFault
from hvproto.hypervisor.exit_view import Exit
from hvproto.hypervisor.mirrored import MirroredGuest
from hvproto.images.assembly import assemble_text
from hvproto.processor.settings import EFLAGS_TF
from tests.hypervisor.lodger import Lodging, logging_kernel

EBX = 3
BODY = "mov eax, cr0\nmov ecx, cr0\nsidt [0x140000]\nmov [result], ebx\nint 0x30\njmp finish\n"


def test_behind_every_exit_comes_an_entry(engine: str) -> None:
    run = Lodging(engine)
    guest = run.add(assemble_text(logging_kernel(BODY)))
    order: list[str] = []

    @guest.on_exit
    def leaves(seen: Exit) -> None:
        order.append(f"exit {seen.eip:#x}")

    @guest.on_entry
    def enters(entered: MirroredGuest) -> None:
        assert entered is guest
        order.append("entry")

    run.run_to_end()
    assert order[0] == "entry" and len(order) > 12
    exits = [at for at, what in enumerate(order[:-1]) if what.startswith("exit")]
    assert len(exits) > 5 and all(order[at + 1] == "entry" for at in exits)
    guest.off_entry(enters)


def test_what_it_changes_is_what_the_guest_goes_on_with(engine: str) -> None:
    run = Lodging(engine)
    guest = run.add(assemble_text(logging_kernel(BODY)))
    guest.on_entry(lambda entered: entered.cpu.set_gpr(EBX, 0x5EED))
    run.run_to_end()
    assert run.words("result") == [0x5EED]


def test_a_trap_flag_set_there_is_a_real_one(engine: str) -> None:
    """The first instruction raises the guest's own #DB behind it, which it has no gate for: it ends by that."""
    run = Lodging(engine)
    guest = run.add(assemble_text(logging_kernel("jmp finish\n")))

    @guest.on_entry
    def steps(entered: MirroredGuest) -> None:
        entered.cpu.eflags |= EFLAGS_TF

    error = run.run_to_end().error
    assert isinstance(error, TripleFault) and error.faults[0].vector == 1
    assert error.where.eip == run.image.symbols["start"] + 1
