"""Devices that are used wrongly say so: which one, for what, by which instruction, when."""

from __future__ import annotations

import pytest

from hvproto.errors import World
from hvproto.machine.complaints import MOST
from tests.support.kernels import booted

END = "\nmov al, 0\nout 0xf4, al\n"


def out(port: int, value: int, label: str = "") -> str:
    return f"mov dx, {port:#x}\nmov al, {value:#x}\n{label}out dx, al\n"


@pytest.mark.parametrize(
    ("body", "device", "what"),
    [
        (out(0x1F7, 0xFF, "here: "), "disk", "it has no command 0xff"),
        (out(0x3F6, 4) + out(0x1F2, 1, "here: "), "disk", "a write to port 0x1f2 while it is busy"),
        (out(0x43, 0x34) + out(0x40, 1) + out(0x40, 0, "here: "), "8254", "the count 1"),
        ("here: in al, 0x43\n", "8254", "control word"),
        (
            out(0x3FB, 0x80) + out(0x3F8, 0) + out(0x3F9, 0) + out(0x3FB, 3, "here: "),
            "COM1",
            "the divisor of its speed is 0",
        ),
        ("nop\nhere: mov eax, [0xfee00010]\n", "local APIC", "no such register"),
    ],
    ids=["command", "busy", "count", "control", "divisor", "register"],
)
def test_a_misuse_is_on_the_list(engine: str, body: str, device: str, what: str) -> None:
    machine = booted(engine, body + END)
    assert machine.run(1_000_000) == 1
    (found,) = machine.complaints.found
    assert found.device == device and what in found.what and found.count == 1
    assert found.where.world is World.GUEST and 0 < found.at < machine.processor.now
    (image,) = machine.images.values()
    if device != "local APIC":  # of an access to memory, the engine knows the block only
        assert found.where.eip == image.symbols["here"]
    assert found.where.symbol is not None and str(found).startswith(f"{device}: ")


def test_the_same_again_is_counted(engine: str) -> None:
    machine = booted(engine, "mov ecx, 1000\nagain: in al, 0x43\nloop again\n" + END)
    assert machine.run(1_000_000) == 1
    (found,) = machine.complaints.found
    assert found.count == 1000 and "(1,000 times)" in str(found)


def test_the_list_is_bounded(engine: str) -> None:
    machine = booted(engine, "in al, 0x43\n" * (MOST + 10) + END)
    assert machine.run(1_000_000) == 1
    assert len(machine.complaints.found) == MOST and machine.complaints.others == 10


def test_nobody_complains_of_a_kernel_that_does_well(engine: str) -> None:
    machine = booted(engine, "SET_TIMER 1000\n" + out(0x1F6, 0xE0) + out(0x1F7, 0xEC) + END)
    assert machine.run(1_000_000) == 1
    assert machine.complaints.found == []
