"""REP OUTS to the disk: the same as word by word, whatever the mode, the width and the place."""

from __future__ import annotations

import time

import pytest

from hvproto.images.assembly import assemble_text
from hvproto.machine import machine as machine_module
from hvproto.machine.machine import Machine
from tests.machine.test_string_input import DISK, END, RAM
from tests.support.boot_sectors import run as run_boot_sector

WRITE = """
.macro BEGIN first, count, command
    mov dx, 0x1f6
    mov al, 0xe0
    out dx, al
    mov dx, 0x1f2
    mov al, \\count
    out dx, al
    inc dx
    mov ax, \\first
    out dx, al
    inc dx
    mov al, ah
    out dx, al
    inc dx
    mov al, 0
    out dx, al
    mov dx, 0x1f7
    mov al, \\command
    out dx, al
    mov dx, 0x1f0
.endm
.macro WRITE first, count
    BEGIN \\first, \\count, 0x30
.endm
"""


def sectors(machine: Machine, count: int = 16) -> bytes:
    """What the disk has now."""
    read: list[bytes] = []
    for lba in range(count):
        machine.disks[0].read(lba, lambda data: read.append(data or b""))
    return b"".join(read)


def kernel(engine: str, body: str) -> Machine:
    machine = Machine(RAM, DISK, engine=engine)
    machine.ram.view[0x200000:0x208000] = bytes(n * 11 % 241 for n in range(0x8000))
    machine.load(assemble_text(WRITE + "start:\ncld\nmov esp, 0x90000\n" + body + END))
    assert machine.run(100_000_000) == 3
    return machine


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step take its own way, as if nobody knew a shorter one."""
    monkeypatch.setattr(machine_module, "give_many", lambda *_arguments: False)


@pytest.mark.parametrize(
    "body",
    [
        "WRITE 3, 1\nmov esi, 0x200000\nmov ecx, 256\nrep outsw",
        "WRITE 3, 1\nmov esi, 0x200000\nmov ecx, 128\nrep outsd",
        "WRITE 3, 4\nmov esi, 0x200ff1\nmov ecx, 1024\nrep outsw",  # over the end of a page, in the middle of a word
        "WRITE 3, 4\nmov esi, 0x200ffd\nmov ecx, 700\nrep outsd\nmov ecx, 9\nrep outsw",  # more than it takes
        "WRITE 0, 2\nmov esi, 0x2003fe\nmov ecx, 512\nstd\nrep outsw\ncld",  # downwards
        "WRITE 5, 1\nmov esi, 0x200000\nout dx, al\nmov ecx, 256\nrep outsw",  # an odd number of bytes is left
        "WRITE 5, 1\nmov esi, 0x200000\nmov ecx, 1\nrep outsw\nxor ecx, ecx\nrep outsw\nmov ecx, 255\nrep outsw",
        "WRITE 7, 1\nmov ecx, 256\nmov esi, 0x2f000\n.byte 0x67, 0xf3, 0x66, 0x6f",  # 16-bit addresses
        "WRITE 7, 1\nmov esi, 0x200000\nmov ecx, 256\n.byte 0x2e, 0xf3, 0x66, 0x6f",  # from the code segment
        "BEGIN 2, 4, 0xc6\nBEGIN 2, 8, 0xc5\nmov esi, 0x200004\nmov ecx, 1024\nrep outsd",  # four sectors a block
        "BEGIN 2, 1, 0x20\nmov esi, 0x200000\nmov ecx, 64\nrep outsd",  # to a disk that wants to be read
    ],
)  # fmt: skip
def test_the_same_as_step_by_step(engine: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = kernel(engine, body)
    one_by_one(monkeypatch)
    slow = kernel(engine, body)
    assert quick.processor.registers() == slow.processor.registers()
    assert quick.processor.now == slow.processor.now
    assert sectors(quick) == sectors(slow)


def test_in_real_mode(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = WRITE + "WRITE 5, 2\nmov ax, 0x700\nmov ds, ax\nmov si, 0xfe00\nmov cx, 512\nrep outsw\n"
    results = []
    for _ in range(2):
        machine = run_boot_sector(engine, body, DISK)
        results.append((sectors(machine), machine.processor.now, machine.processor.registers()))
        one_by_one(monkeypatch)
    assert results[0] == results[1]
    assert results[0][0][6 * 512 : 7 * 512] == bytes(machine.ram.view[0x7000:0x7200])  # SI has gone around


def test_what_is_written_comes_back(engine: str) -> None:
    """And the drive is done with it by the next instruction."""
    machine = kernel(
        engine, "WRITE 9, 1\nmov esi, 0x200010\nmov ecx, 128\nrep outsd\nmov dx, 0x1f7\nin al, dx\nmov bl, al"
    )
    assert sectors(machine)[9 * 512 : 10 * 512] == bytes(machine.ram.view[0x200010:0x200210])
    assert machine.processor.gpr(3) & 0xFF == 0x50  # ready, nothing wanted any more


def test_a_mebibyte_is_written_in_half_a_second(engine: str) -> None:
    """Word by word it takes one second with the quicker engine, three with the other."""
    block = "mov ebp, 128\n2: mov dx, 0x1f7\n1: in al, dx\ntest al, 8\njz 1b\nmov dx, 0x1f0\nmov ecx, 256\nrep outsw\ndec ebp\njnz 2b\n"
    body = "mov esi, 0x200000\n" + "".join(f"WRITE {first}, 128\n" + block for first in range(0, 2048, 128))
    began = time.process_time()
    machine = kernel(engine, body)
    assert time.process_time() - began < 0.6
    assert sectors(machine, 2048) == bytes(machine.ram.view[0x200000:0x300000])
