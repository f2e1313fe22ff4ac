"""INT 13h."""

from __future__ import annotations

import pytest

from hvproto.machine.bios.geometry import Geometry, geometry
from tests.support.boot_sectors import booted, kept, ram, run

SECTORS = b"".join(bytes([number]) * 512 for number in range(1, 256))
READ = "mov ax, {ax:#x}\nmov cx, {cx:#x}\nmov dx, {dx:#x}\nmov bx, 0x9000\nint 0x13\nKEEP results\n"


@pytest.mark.parametrize(("cx", "dh", "first"), [(0x0002, 0, 1), (0x003F, 0, 62), (0x0001, 1, 63), (0x0003, 2, 128)])
def test_read_by_place(engine: str, cx: int, dh: int, first: int) -> None:
    machine = run(engine, READ.format(ax=0x0203, cx=cx, dx=dh << 8 | 0x80), SECTORS)
    eax, *_, carry, _ = kept(machine)
    assert (eax & 0xFFFF, carry) == (0x0003, False)
    assert ram(machine, 0x9000, 3 * 512) == SECTORS[(first - 1) * 512 : (first + 2) * 512]
    assert not any(ram(machine, 0x9600, 16))


@pytest.mark.parametrize(
    ("ax", "cx", "dx", "status"),
    [
        (0x0201, 0x0000, 0x0080, 0x04),  # no sector 0
        (0x0201, 0x0001, 0x1080, 0x04),  # no head 16
        (0x0201, 0x0502, 0x0080, 0x04),  # behind the end
        (0x0200, 0x0001, 0x0080, 0x01),
        (0x0201, 0x0001, 0x0081, 0x01),  # no such drive
        (0x0201, 0x0001, 0x0000, 0x80),
        (0x7700, 0x0001, 0x0080, 0x01),  # no such function
    ],
)
def test_what_cannot_be_read(ax: int, cx: int, dx: int, status: int) -> None:
    machine = run(None, READ.format(ax=ax, cx=cx, dx=dx) + "mov ah, 1\nint 0x13\nKEEP 0x7e20\n", SECTORS)
    eax, *_, carry, _ = kept(machine)
    assert (eax >> 8 & 0xFF, carry) == (status, True)
    assert kept(machine, 0x7E20)[0] >> 8 & 0xFF == status


def test_the_end_of_the_disk_in_the_middle() -> None:
    machine = run(None, READ.format(ax=0x0205, cx=0x0003, dx=0x0480), SECTORS)
    eax, *_, carry, _ = kept(machine)
    assert (eax & 0xFFFF, carry) == (0x0402, True)
    assert ram(machine, 0x9000, 2048) == SECTORS[-1024:] + bytes(1024)


PACKET = """
    mov si, packet
    mov ah, {ah:#x}
    mov dl, {dl:#x}
    int 0x13
    KEEP results
    jmp over
packet: .byte 16, 0
    .word {count}, 0x0000, 0x0a00
    .quad {lba}
over:
"""


def test_read_by_number(engine: str) -> None:
    machine = run(engine, PACKET.format(ah=0x42, dl=0x80, count=100, lba=100), SECTORS)
    assert kept(machine)[0] >> 8 & 0xFF == 0 and not kept(machine)[4]
    assert ram(machine, 0xA000, 51200) == SECTORS[99 * 512 : 199 * 512]


def test_a_packet_tells_how_far_it_came() -> None:
    machine = run(None, PACKET.format(ah=0x42, dl=0x80, count=100, lba=250), SECTORS)
    eax, *_, carry, _ = kept(machine)
    assert (eax >> 8 & 0xFF, carry) == (0x04, True)
    at = machine.images[machine.world].symbols["packet"]
    assert ram(machine, at + 2, 2) == b"\x06\0"


def test_write_and_read_back_on_the_second_disk() -> None:
    write = PACKET.format(ah=0x43, dl=0x81, count=1, lba=3).replace("packet", "p1").replace("over", "o1")
    read = READ.format(ax=0x0201, cx=0x0004, dx=0x0081)
    machine = run(None, "mov dword ptr [0xa000], 0x12345678\n" + write + read, second=bytes(10 * 512))
    assert ram(machine, 0x9000, 5) == b"\x78\x56\x34\x12\0"
    assert machine.disks[0].sectors == 1


def test_write_by_place() -> None:
    write = READ.format(ax=0x0301, cx=0x0005, dx=0x0080).replace("0x9000", "0x7c00")
    machine = run(None, write + READ.format(ax=0x0201, cx=0x0005, dx=0x0080), SECTORS)
    assert ram(machine, 0x9000, 512) == ram(machine, 0x7C00, 512)


def test_parameters() -> None:
    body = "mov ah, 8\nmov dl, 0x80\nint 0x13\nKEEP results\nmov ah, 0x15\nmov dl, 0x80\nint 0x13\nKEEP 0x7e20\n"
    machine = run(None, body, bytes(300 * 16 * 63 * 512 - 512))
    eax, _, ecx, edx, carry, _ = kept(machine)
    assert (eax & 0xFF00, carry) == (0, False)
    assert (ecx & 0xFFFF, edx & 0xFFFF) == (299 % 256 << 8 | 299 >> 8 << 6 | 63, 15 << 8 | 1)
    eax, _, ecx, edx, carry, _ = kept(machine, 0x7E20)
    assert (eax >> 8 & 0xFF, (ecx & 0xFFFF) << 16 | edx & 0xFFFF, carry) == (3, 300 * 16 * 63, False)


def test_extended_parameters() -> None:
    body = "mov word ptr [0x9000], 26\nmov si, 0x9000\nmov ah, 0x48\nmov dl, 0x80\nint 0x13\nKEEP results\n"
    machine = run(None, body, SECTORS)
    assert not kept(machine)[4]
    fields = ram(machine, 0x9000, 26)
    assert int.from_bytes(fields[16:24], "little") == 256 and fields[24:26] == b"\0\x02"


def test_a_diskette_is_drive_0_with_its_own_geometry() -> None:
    rest = bytearray(2879 * 512)
    rest[17 * 512 : 17 * 512 + 4] = b"here"  # cylinder 0, head 1, sector 1
    machine = booted(None, READ.format(ax=0x0201, cx=0x0001, dx=0x0100), bytes(rest))
    assert machine.processor.gpr(2) == 0
    machine.run(10_000_000)
    assert ram(machine, 0x9000, 4) == b"here"


@pytest.mark.parametrize(
    ("sectors", "expected"),
    [
        (1, Geometry(1, 16, 63)),
        (1024 * 16 * 63, Geometry(1024, 16, 63)),
        (1024 * 16 * 63 + 1, Geometry(512, 32, 63)),
        (1 << 31, Geometry(1024, 255, 63)),
    ],
)
def test_geometry(sectors: int, expected: Geometry) -> None:
    assert geometry(sectors, bytes(512)) == expected


def test_geometry_of_a_partition_table() -> None:
    entry = bytes([0x80, 1, 1, 0, 0x0C, 254, 0xFF, 0x10]) + (63).to_bytes(4, "little") + (16002).to_bytes(4, "little")
    sector = bytes(0x1BE) + entry + bytes(48) + b"\x55\xaa"
    assert geometry(16065 * 4, sector) == Geometry(4, 255, 63)


def test_code_that_is_read_over_old_code(engine: str) -> None:
    """The second sector that comes to the same place is executed, not what was there before."""
    first = b"\xb0a\xe6\xe9\xc3".ljust(512, b"\0")  # mov al, 'a'; out 0xe9, al; ret
    second = first.replace(b"a", b"b", 1)
    load = "mov ax, 0x0201\nmov cx, {}\nmov dx, 0x80\nmov bx, 0x9000\nint 0x13\ncall near 0x9000\n"
    machine = run(engine, "".join(load.format(n) for n in (2, 3, 2)), first + second)
    assert machine.debug_output == b"aba"
