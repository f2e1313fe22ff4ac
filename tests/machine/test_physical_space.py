"""Addresses where neither RAM nor a device is: all ones, no error, and a list of them."""

from __future__ import annotations

import pytest

from hvproto.errors import MachineError, NoMemory
from hvproto.machine.physical_space import MOST_PAGES
from hvproto.machine.unclaimed import Space
from tests.support.kernels import RAM, booted, word

END = "\nmov al, 0\nout 0xf4, al\n"


@pytest.mark.parametrize("paging", ["", "call paging_on\n"], ids=["physical", "paged"])
def test_nobody_answers_reads_and_writes(engine: str, paging: str) -> None:
    machine = booted(
        engine,
        paging
        + """
        mov eax, [0xd0000ffe]           ; over the border of two pages
        mov [first], eax
        mov ax, [0xd0000000]
        mov [second], ax
        mov al, [0xd0000001]
        mov [third], al
        mov dword ptr [0xd0000000], 0x12345678
        mov eax, [0xd0000000]
        mov [fourth], eax
        mov ecx, 16
        mov esi, 0xd0002000
        mov edi, copied
        rep movsd
        add dword ptr [0xd0003000], 1
        """
        + END
        + """
first:  .long 0
second: .word 0, 0
third:  .byte 0, 0, 0, 0
fourth: .long 0
copied: .space 64
paging_on:
        mov dword ptr [0x9000], 0x83    ; 4 MiB pages: low memory and the place in question
        mov dword ptr [0x9d00], 0xd0000083
        mov eax, cr4
        or eax, 0x10
        mov cr4, eax
        mov eax, 0x9000
        mov cr3, eax
        mov eax, 0x80000011
        mov cr0, eax
        ret
""",
    )
    assert machine.run(1_000_000) == 1
    assert word(machine, "first") == word(machine, "fourth") == 0xFFFF_FFFF
    assert (word(machine, "second"), word(machine, "third")) == (0xFFFF, 0xFF)
    (image,) = machine.images.values()
    at = image.symbols["copied"]
    assert bytes(machine.ram.view[at : at + 64]) == b"\xff" * 64
    found = [(one.address, one.direction, one.count) for one in machine.unclaimed if one.space is Space.MEMORY]
    assert [(address, direction) for address, direction, _ in found] == [
        (0xD0000000, "read"), (0xD0000000, "write"), (0xD0001000, "read"), (0xD0002000, "read"),
        (0xD0003000, "read"), (0xD0003000, "write"),
    ]  # fmt: skip
    assert found[1][2] == found[4][2] == found[5][2] == 1 and found[3][2] == 16
    assert str(machine.unclaimed[-1]) == "memory page 0xd0003000: write once"


def test_ram_is_sized_by_writing_behind_it(engine: str) -> None:
    machine = booted(
        engine,
        """
        mov edi, 0x100000
next:   add edi, 0x100000
        mov dword ptr [edi - 4], 0x5aa55aa5
        cmp dword ptr [edi - 4], 0x5aa55aa5
        je next
        sub edi, 0x100000
        mov [size], edi
        """
        + END
        + "size: .long 0",
    )
    assert machine.run(1_000_000) == 1
    assert word(machine, "size") == RAM


def test_the_list_is_bounded(engine: str) -> None:
    machine = booted(
        engine,
        "mov edi, 0x80000000\nmov ecx, 2000\nnext: mov [edi], eax\nadd edi, 0x1000\nloop next\n" + END,
    )
    assert machine.run(1_000_000) == 1
    assert len(machine.unclaimed) == MOST_PAGES
    assert machine.platform.space.unclaimed_elsewhere == 2000 - MOST_PAGES


def test_ports_are_in_the_same_list(engine: str) -> None:
    machine = booted(engine, "mov dx, 0x300\nin al, dx\nin al, dx\nout dx, al\nmov [0xe0000000], al\n" + END)
    assert machine.run(1_000_000) == 1
    assert [str(one) for one in machine.unclaimed] == [
        "port 0x0300: read 2 times", "port 0x0300: write once", "memory page 0xe0000000: write once",
    ]  # fmt: skip


def test_a_page_directory_that_is_not_there(engine: str) -> None:
    """All of its entries are ones: every address leads to the last page of 4 GiB, where there is no code either."""
    machine = booted(engine, "mov eax, 0xd0000000\nmov cr3, eax\nmov eax, 0x80000011\nmov cr0, eax\nnop")
    with pytest.raises(NoMemory) as caught:
        machine.run(1_000_000)
    assert caught.value.access == "instruction fetch" and caught.value.physical >> 12 == 0xFFFFF


def test_devices_are_never_over_each_other_nor_over_ram() -> None:
    machine = booted("native", END)
    space, lapic = machine.platform.space, machine.board.interrupts.lapic
    for base in (0xFEE0_0000, 0xFEC0_0000, 0x10_0000):
        with pytest.raises(MachineError, match="something else"):
            space.attach(lapic, base)
