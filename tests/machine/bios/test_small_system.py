"""A small operating system in real mode, from a FAT12 diskette and from a partition of a fixed disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvproto.images.assembly import assemble, assemble_text
from hvproto.machine.clock import CYCLES_PER_SECOND as SECONDS
from hvproto.machine.machine import Machine
from tests.machine.bios.fat12 import SECTOR, file_system
from tests.support.boot_sectors import screen

HERE = Path(__file__).parent

# The first sector of a fixed disk: it moves itself away and enters the boot sector of the active partition.
PARTITION_LOADER = """
.origin 0x600
.code16
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ds, ax
    mov es, ax
    cld
    mov si, 0x7c00
    mov di, 0x600
    mov cx, 256
    rep movsw
    jmp 0:moved
moved:
    sti
    mov si, 0x7be
.next:
    cmp byte ptr [si], 0x80
    je .active
    add si, 16
    cmp si, 0x7fe
    jb .next
    int 0x18
.active:
    mov ax, 0x0201
    mov bx, 0x7c00
    mov dh, [si + 1]
    mov cx, [si + 2]
    int 0x13
    jc .next
    jmp 0:0x7c00
"""


def assembled(name: str) -> bytes:
    (segment,) = assemble(HERE / name).segments
    return segment.data


def files() -> dict[str, bytes]:
    return {"README.TXT": b"not this one\r\n" * 50, "SYSTEM.BIN": assembled("small_shell.asm"), "LAST.TXT": b"nor this"}


def diskette(sectors: int, shape: tuple[int, int], contents: dict[str, bytes] | None = None) -> bytes:
    return file_system(assembled("small_system.asm"), files() if contents is None else contents, sectors, shape)


def fixed_disk() -> bytes:
    """One active partition, the third in the table, from sector 63 on."""
    size, hidden = 4 * 16 * 63, 63
    volume = file_system(assembled("small_system.asm"), files(), size - hidden, (16, 63), hidden=hidden, drive=0x80)
    (loader,) = assemble_text(PARTITION_LOADER, "partition loader").segments
    entry = (
        bytes((0x80, 1, 1, 0, 0x01, 15, 63, 3)) + hidden.to_bytes(4, "little") + (size - hidden).to_bytes(4, "little")
    )
    first = loader.data.ljust(446, b"\0") + bytes(32) + entry + bytes(16) + b"\x55\xaa"
    return first + bytes((hidden - 1) * SECTOR) + volume


@pytest.mark.parametrize(
    ("disk", "per_track"),
    [
        (lambda: diskette(2880, (2, 18)), 18),
        (lambda: diskette(720, (2, 9)), 9),
        (lambda: diskette(320, (1, 8)), 8),
        (fixed_disk, 63),
    ],
)  # fmt: skip
def test_it_works_and_boots_again(engine: str, disk: object, per_track: int) -> None:
    machine = Machine(1 << 20, disk(), engine=engine)  # type: ignore[operator]
    machine.boot_disk()
    for start in (1, 2):
        machine.run_until(f"press a key {start}", 2 * SECONDS)
        machine.type("x")
        machine.run_until(f"{start}> ", 2 * SECONDS)
        machine.type("Helo\blo, WORLD!\n")
        machine.run_until(f"again {start}", 2 * SECONDS)
        lines = machine.debug_output.decode("latin-1").split("small system")[start].splitlines()
        assert lines[0] == f", sectors per track: {per_track:02}"
        assert lines[3] == "you said: Hello, WORLD!" and lines[4] == "it is 2000-01-01 00:00"
    assert "you said: Hello, WORLD!" in [screen(machine, row) for row in range(25)]


def test_two_runs_are_identical() -> None:
    ends = []
    for _ in range(2):
        machine = Machine(1 << 20, diskette(2880, (2, 18)))
        machine.boot_disk()
        machine.type("x")
        machine.run_until("1> ", 2 * SECONDS)
        ends.append((machine.processor.now, machine.processor.registers(), bytes(machine.ram.view)))
    assert ends[0] == ends[1]


def test_a_diskette_without_the_system() -> None:
    machine = Machine(1 << 20, diskette(2880, (2, 18), {"README.TXT": b"nothing"}))
    machine.boot_disk()
    assert machine.run(2 * SECONDS) == 0
    assert screen(machine, 0) == "no systemNo system to boot"
