"""The PCI BIOS and INT 14h."""

from __future__ import annotations

import pytest

from tests.support.boot_sectors import booted, kept, run


def pci(function: int, at: int, **registers: int) -> str:
    loads = "".join(f"mov {name}, {value:#x}\n" for name, value in registers.items())
    return f"{loads}mov ax, {0xB100 | function:#x}\nint 0x1a\nKEEP {at:#x}\n"


def test_it_is_there(engine: str) -> None:
    eax, ebx, ecx, edx, carry, _ = kept(run(engine, pci(0x01, 0x7E00)))
    assert (eax & 0xFFFF, ebx & 0xFFFF, ecx & 0xFF, edx, carry) == (0x0001, 0x0210, 0, 0x20494350, False)


def test_find_a_device_and_a_class(engine: str) -> None:
    body = pci(0x02, 0x7E00, cx=0x7010, dx=0x8086, si=0) + pci(0x03, 0x7E20, ecx=0x060100, si=0)
    body += pci(0x02, 0x7E40, cx=0x7010, dx=0x8086, si=1) + pci(0x02, 0x7E60, cx=1, dx=0xFFFF, si=0)
    machine = run(engine, body)
    found = [(kept(machine, at)[0] >> 8 & 0xFF, kept(machine, at)[4]) for at in range(0x7E00, 0x7E80, 0x20)]
    assert found == [(0, False), (0, False), (0x86, True), (0x83, True)]
    assert kept(machine)[1] & 0xFFFF == 0x0009 and kept(machine, 0x7E20)[1] & 0xFFFF == 0x0008


def test_configuration_space(engine: str) -> None:
    """Bytes, words and dwords are read; a latency timer is written; a register that isn't aligned is refused."""
    body = pci(0x08, 0x7E00, bx=0, di=0, ecx=0x12345678) + pci(0x09, 0x7E20, bx=0, di=2) + pci(0x0A, 0x7E40, bx=0, di=8)
    body += (
        pci(0x0B, 0x7E60, bx=0, di=0x0D, ecx=0x40) + pci(0x08, 0x7E80, bx=0, di=0x0D) + pci(0x0A, 0x7EA0, bx=0, di=6)
    )
    machine = run(engine, body + pci(0x0E, 0x7EC0))
    assert kept(machine)[2] == 0x12345686
    assert kept(machine, 0x7E20)[2] & 0xFFFF == 0x1237 and kept(machine, 0x7E40)[2] == 0x06000002
    assert kept(machine, 0x7E80)[2] & 0xFF == 0x40
    refused = [(kept(machine, at)[0] >> 8 & 0xFF, kept(machine, at)[4]) for at in (0x7EA0, 0x7EC0)]
    assert refused == [(0x87, True), (0x81, True)]


SERIAL = "mov ah, {ah}\nmov al, {al:#x}\nmov dx, 0\nint 0x14\nKEEP {at:#x}\n"


def test_serial(engine: str) -> None:
    body = SERIAL.format(ah=0, al=0xE3, at=0x7E00) + SERIAL.format(ah=1, al=ord("!"), at=0x7E20)
    body += SERIAL.format(ah=2, al=0, at=0x7E40) + SERIAL.format(ah=2, al=0, at=0x7E60)
    machine = booted(engine, body)
    machine.board.uart.receive(b"?")
    assert machine.run(10_000_000) == 3
    assert machine.serial_output == b"!"
    assert kept(machine)[0] & 0x6000 == 0x6000 and not kept(machine, 0x7E20)[0] & 0x8000
    assert kept(machine, 0x7E40)[0] & 0xFFFF == ord("?") and kept(machine, 0x7E60)[0] >> 8 & 0x80


@pytest.mark.parametrize(
    ("registers", "interrupt"), [("mov ah, 1\nmov dx, 1\n", 0x14), ("mov ah, 0\nmov dx, 0\n", 0x17)]
)
def test_ports_that_are_not_there(registers: str, interrupt: int) -> None:
    eax, *_ = kept(run(None, f"{registers}int {interrupt:#x}\nKEEP results\n"))
    assert eax >> 8 & 0x81
