"""INT 13h on diskettes, and the firmware's answers about all drives."""

from __future__ import annotations

import pytest

from hvproto.machine.bios.diskette import diskette
from hvproto.machine.bios.geometry import Geometry
from tests.support.boot_sectors import booted, kept, ram, run

SIZES = {
    320: (40, 1, 8, 1), 360: (40, 1, 9, 1), 640: (40, 2, 8, 1), 720: (40, 2, 9, 1), 1440: (80, 2, 9, 3),
    2400: (80, 2, 15, 2), 2880: (80, 2, 18, 4), 3360: (80, 2, 21, 4), 5760: (80, 2, 36, 5),
}  # fmt: skip
ASK = "mov ah, 8\nmov dl, {dl:#x}\nint 0x13\nKEEP results\nmov [0x7e20], es\nmov [0x7e22], di\n"
CALL = "mov ax, {ax:#x}\nmov cx, {cx:#x}\nmov dx, {dx:#x}\nmov bx, {bx:#x}\nint 0x13\nKEEP {at:#x}\n"
A_144 = bytes(2879 * 512)


def status(machine: object, at: int = 0x7E00) -> tuple[int, bool]:
    eax, *_, carry, _ = kept(machine, at)  # type: ignore[arg-type]
    return eax >> 8 & 0xFF, carry


@pytest.mark.parametrize("sectors", SIZES)
def test_every_size(sectors: int) -> None:
    cylinders, heads, per_track, kind = SIZES[sectors]
    found = diskette(sectors)
    assert found is not None and found.geometry == Geometry(cylinders, heads, per_track)
    rest = bytearray((sectors - 1) * 512)
    rest[-512:-508] = b"last"
    last = (cylinders - 1) << 8 | per_track
    read = CALL.format(ax=0x0201, cx=last, dx=(heads - 1) << 8, bx=0x9000, at=0x7E40)
    machine = booted(None, ASK.format(dl=0) + "xor ax, ax\nmov es, ax\n" + read, bytes(rest))
    assert machine.processor.gpr(2) == 0  # DL: drive A
    machine.run(10_000_000)
    _, ebx, ecx, edx, carry, _ = kept(machine)
    assert (ebx & 0xFF, ecx & 0xFFFF, edx & 0xFFFF, carry) == (kind, last, (heads - 1) << 8 | 1, False)
    assert status(machine, 0x7E40) == (0, False) and ram(machine, 0x9000, 4) == b"last"
    segment, offset = (int.from_bytes(ram(machine, at, 2), "little") for at in (0x7E20, 0x7E22))
    assert ram(machine, (segment << 4) + offset, 5) == bytes((0xDF, 0x02, 0x25, 0x02, per_track))
    assert ram(machine, 0x1E * 4, 4) == ram(machine, 0x7E22, 2) + ram(machine, 0x7E20, 2)
    assert machine.platform.rtc.memory[0x10] == kind << 4 and machine.platform.rtc.memory[0x12] == 0
    assert ram(machine, 0x475, 1) == b"\0" and ram(machine, 0x410, 1)[0] & 0xC1 == 0x01


def test_two_diskettes_and_no_fixed_disk() -> None:
    body = "int 0x11\nKEEP results\n" + CALL.format(ax=0x0201, cx=2, dx=1, bx=0x9000, at=0x7E20)
    second = bytearray(720 * 512)
    second[512] = 0x42
    machine = run(None, body, A_144, bytes(second))
    assert kept(machine)[0] & 0xC1 == 0x41
    assert ram(machine, 0x9000, 1) == b"\x42" and machine.platform.rtc.memory[0x10] == 0x41


def test_a_diskette_beside_a_fixed_disk() -> None:
    body = CALL.format(ax=0x0201, cx=2, dx=0, bx=0x9000, at=0x7E00)
    second = bytearray(2880 * 512)
    second[512] = 0x42
    machine = booted(None, body, second=bytes(second))
    assert machine.processor.gpr(2) == 0x80
    machine.run(10_000_000)
    assert status(machine) == (0, False) and ram(machine, 0x9000, 1) == b"\x42"


@pytest.mark.parametrize(
    ("ax", "cx", "dx", "bx", "expected"),
    [
        (0x0201, 0x0013, 0x0000, 0x9000, 0x04),  # no sector 19
        (0x0201, 0x0001, 0x0200, 0x9000, 0x04),  # no head 2
        (0x0201, 0x5001, 0x0000, 0x9000, 0x04),  # no cylinder 80
        (0x0200, 0x0001, 0x0000, 0x9000, 0x01),
        (0x0202, 0x0001, 0x0000, 0xFE00, 0x09),  # across 64 KiB
        (0x0201, 0x0001, 0x0001, 0x9000, 0x80),  # no drive B
        (0x4100, 0x0000, 0x0000, 0x55AA, 0x01),  # no packets
        (0x1800, 0x2709, 0x0000, 0x9000, 0x0C),  # it isn't one of 360 KiB
    ],
)
def test_errors(ax: int, cx: int, dx: int, bx: int, expected: int) -> None:
    body = CALL.format(ax=ax, cx=cx, dx=dx, bx=bx, at=0x7E00)
    machine = run(None, body + f"mov ah, 1\nmov dl, {dx & 0xFF}\nint 0x13\nKEEP 0x7e20\n", A_144)
    assert status(machine) == (expected, True)
    assert status(machine, 0x7E20) == (expected, True)
    assert ram(machine, 0x441, 1)[0] == expected and ram(machine, 0x474, 1) == b"\0"


def test_up_to_the_end_of_64_kib() -> None:
    machine = run(None, CALL.format(ax=0x0201, cx=1, dx=0, bx=0xFE00, at=0x7E00), A_144)
    assert status(machine) == (0, False) and ram(machine, 0xFFFE, 2) == b"\x55\xaa"


def test_a_fixed_disk_reads_across_64_kib() -> None:
    machine = run(None, CALL.format(ax=0x0202, cx=1, dx=0x80, bx=0xFE00, at=0x7E00), b"\x42" * 512)
    assert status(machine) == (0, False) and ram(machine, 0x10000, 1) == b"\x42"


def test_change_line_reset_and_media() -> None:
    calls = (0x1500, 0x1600, 0x0000, 0x1800)
    body = "".join(CALL.format(ax=ax, cx=0x4F12, dx=0, bx=0, at=0x7E00 + 0x20 * n) for n, ax in enumerate(calls))
    machine = run(None, body, A_144)
    assert [status(machine, 0x7E00 + 0x20 * n) for n in range(4)] == [(2, False), (0, False), (0, False), (0, False)]


def test_format_a_track() -> None:
    body = CALL.format(ax=0x0512, cx=0x0200, dx=0x0100, bx=0x9000, at=0x7E00)
    machine = run(None, body, A_144)
    assert status(machine) == (0, False)
    written: list[bytes | None] = []
    for lba in (89, 90, 107, 108):
        machine.disks[0].read(lba, written.append)
    assert [sector[:1] for sector in written if sector] == [b"\0", b"\xf6", b"\xf6", b"\0"]


@pytest.mark.parametrize(("dl", "expected"), [(0x01, (0, False)), (0x80, (7, True))])
def test_parameters_of_a_drive_that_is_not_there(dl: int, expected: tuple[int, bool]) -> None:
    machine = run(None, ASK.format(dl=dl), A_144)
    assert status(machine) == expected
    _, ebx, ecx, edx, *_ = kept(machine)
    assert (ebx & 0xFFFF, ecx & 0xFFFF, edx & 0xFFFF) == (0, 0, 1 if dl < 0x80 else 0)


def test_a_flat_address_in_a_packet(engine: str) -> None:
    body = """
    mov si, packet
    mov ax, 0x4200
    mov dl, 0x80
    int 0x13
    KEEP results
    jmp over
packet: .byte 24, 0, 1, 0
    .long 0xffffffff
    .quad 1, 0x200000
over:
"""
    machine = run(engine, body, b"high".ljust(512, b"\0"))
    assert status(machine) == (0, False) and ram(machine, 0x200000, 4) == b"high"


def test_packets_are_checked_for_and_bounded() -> None:
    body = CALL.format(ax=0x4100, cx=0, dx=0x80, bx=0x55AA, at=0x7E00)
    for n, lba in enumerate((1, 2), 1):
        body += f"mov dword ptr [0x9000], 0x00010010\nmov dword ptr [0x9004], 0xa000\nmov dword ptr [0x9008], {lba}\n"
        body += f"mov dword ptr [0x900c], 0\nmov si, 0x9000\nmov ah, 0x47\nmov dl, 0x80\nint 0x13\nKEEP {0x7E00 + 0x20 * n}\n"
    machine = run(None, body, bytes(512))
    eax, ebx, ecx, _, carry, _ = kept(machine)
    assert (eax >> 8 & 0xFF, ebx & 0xFFFF, ecx & 1, carry) == (0x30, 0xAA55, 1, False)
    assert status(machine, 0x7E20) == (0, False) and status(machine, 0x7E40) == (4, True)
