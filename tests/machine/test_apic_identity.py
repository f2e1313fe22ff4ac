"""The local APIC's ID, which loads may get without Python being asked: always that of the APIC, where it is now."""

from __future__ import annotations

import pytest

from hvproto.machine.lapic import Register
from hvproto.machine.machine import Machine
from tests.support.kernels import booted, word

FIRST, SECOND = 0xFEE0_0000, 0xFEF0_0000
NOBODY = 0xFFFF_FFFF
MOVE = "mov ecx, 0x1b\nxor edx, edx\nmov eax, {:#x}\nwrmsr\n"
ENABLED = 0x900
END = "\nmov al, 0\nout 0xf4, al\n"


def ran(engine: str, *steps: str) -> tuple[Machine, list[int]]:
    """Run some code, and note what the ID register gives at both places after each step, each read twice."""
    body, names = "", []
    for number, step in enumerate(steps):
        body += step + "\n"
        for place in (FIRST, SECOND):
            names.append(f"at_{number}_{place:x}")
            body += (
                f"mov eax, [{place + Register.ID:#x}]\nmov eax, [{place + Register.ID:#x}]\nmov [{names[-1]}], eax\n"
            )
    machine = booted(engine, body + END + "".join(f"{name}: .long 0\n" for name in names))
    assert machine.run(10_000_000) == 1
    return machine, [word(machine, name) for name in names]


def test_it_is_what_was_written_last(engine: str) -> None:
    write = "mov dword ptr [0xfee00020], {:#x}"
    _, seen = ran(engine, "nop", write.format(0x0500_0000), write.format(0x0612_3456), write.format(0))
    assert seen[::2] == [0, 0x0500_0000, 0x0600_0000, 0]
    assert set(seen[1::2]) == {NOBODY}


def test_it_moves_with_the_apic(engine: str) -> None:
    move_there, move_back = MOVE.format(SECOND | ENABLED), MOVE.format(FIRST | ENABLED)
    machine, seen = ran(
        engine,
        "mov dword ptr [0xfee00020], 0x07000000",
        move_there,
        "mov dword ptr [0xfef00020], 0x08000000",
        move_back,
    )
    assert seen == [0x0700_0000, NOBODY, NOBODY, 0x0700_0000, NOBODY, 0x0800_0000, 0x0800_0000, NOBODY]
    assert sum(one.count for one in machine.unclaimed if one.address in (FIRST, SECOND)) == 8, (
        "each read where the APIC isn't was asked for, and nobody answered"
    )


def test_a_disabled_apic_has_none(engine: str) -> None:
    _, seen = ran(engine, "mov dword ptr [0xfee00020], 0x03000000", MOVE.format(FIRST), MOVE.format(FIRST | ENABLED))
    assert seen[1::2] == [NOBODY] * 3
    assert seen[0] == 0x0300_0000
    assert seen[2] == NOBODY
    assert seen[4] != NOBODY


@pytest.mark.parametrize(("load", "value"), [
    ("movzx eax, byte ptr [0xfee00023]", 0x09), ("movzx eax, word ptr [0xfee00022]", 0x0900),
    ("mov eax, [0xfee00030]", None),
])  # fmt: skip
def test_other_loads_ask_as_before(engine: str, load: str, value: int | None) -> None:
    machine = booted(
        engine,
        f"mov dword ptr [0xfee00020], 0x09000000\nmov eax, [0xfee00020]\n{load}\nmov [got], eax\n{END}got: .long 0\n",
    )
    assert machine.run(10_000_000) == 1
    lapic = machine.board.interrupts.lapic
    assert word(machine, "got") == (lapic.read_mmio(Register.VERSION, 4) if value is None else value)


def test_two_machines_do_not_share_it(engine: str) -> None:
    first, seen = ran(engine, "mov dword ptr [0xfee00020], 0x0a000000")
    _, others = ran(engine, "nop")
    assert (seen[0], others[0]) == (0x0A00_0000, 0)
    assert first.board.interrupts.lapic.read_mmio(Register.ID, 4) == 0x0A00_0000
