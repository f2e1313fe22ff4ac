"""REP INS from the disk: the same as word by word, whatever the mode, the width and the place."""

from __future__ import annotations

import time

import pytest

from hvproto.images.assembly import assemble_text
from hvproto.machine import machine as machine_module
from hvproto.machine.machine import Machine
from tests.support.boot_sectors import run as run_boot_sector

RAM = 4 << 20
DISK = bytes(n * 7 % 251 for n in range(2048 * 512))

READ = """
.macro READ first, count
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
    mov al, 0x20
    out dx, al
    mov dx, 0x1f0
.endm
"""
END = "\nmov al, 1\nout 0xf4, al\nhlt\n"


def kernel(engine: str, body: str) -> Machine:
    machine = Machine(RAM, DISK, engine=engine)
    machine.load(assemble_text(READ + "start:\ncld\nmov esp, 0x90000\n" + body + END))
    assert machine.run(100_000_000) == 3
    return machine


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step take its own way, as if nobody knew a shorter one."""
    monkeypatch.setattr(machine_module, "take_many", lambda *_arguments: None)


@pytest.mark.parametrize(
    "body",
    [
        "READ 3, 1\nmov edi, 0x200000\nmov ecx, 256\nrep insw",
        "READ 3, 1\nmov edi, 0x200000\nmov ecx, 128\nrep insd",
        "READ 3, 4\nmov edi, 0x200ff1\nmov ecx, 1024\nrep insw",  # over the end of a page, in the middle of a word
        "READ 3, 4\nmov edi, 0x200ffd\nmov ecx, 700\nrep insd\nmov ecx, 9\nrep insw",  # more than there is
        "READ 0, 2\nmov edi, 0x2003fe\nmov ecx, 256\nstd\nrep insw\ncld",  # downwards
        "READ 5, 1\nmov edi, 0x200000\nin al, dx\nmov ecx, 256\nrep insw",  # an odd number of bytes is left
        "READ 5, 1\nmov edi, 0x200000\nmov ecx, 1\nrep insw\nxor ecx, ecx\nrep insw\nmov ecx, 2\nrep insw",
        "READ 7, 1\nmov ecx, 256\nmov edi, 0x20000\nto:\n.byte 0x67, 0xf3, 0x66, 0x6d",  # 16-bit addresses: 64 KiB
    ],
)  # fmt: skip
def test_the_same_as_step_by_step(engine: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = kernel(engine, body)
    one_by_one(monkeypatch)
    slow = kernel(engine, body)
    assert quick.processor.registers() == slow.processor.registers()
    assert quick.processor.now == slow.processor.now
    assert bytes(quick.ram.view) == bytes(slow.ram.view)


def test_in_real_mode(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = READ + "READ 0, 2\nmov ax, 0x900\nmov es, ax\nmov di, 0xfe00\nmov cx, 512\nrep insw\n"
    results = []
    for _ in range(2):
        machine = run_boot_sector(engine, body, DISK)
        results.append((bytes(machine.ram.view), machine.processor.now, machine.processor.registers()))
        one_by_one(monkeypatch)
    assert results[0] == results[1]
    assert results[0][0][0x9000:0x9200] == DISK[:512]  # DI has gone around


def test_code_that_comes_from_the_disk(engine: str) -> None:
    """What is read over code that has run is what runs next."""
    code = b"\xb0%c\xe6\xe9\xc3"  # mov al, ...; out 0xe9, al; ret
    disk = b"".join((code % letter).ljust(512, b"\0") for letter in b"ab")
    body = "".join(
        f"READ {n}, 1\nmov edi, 0x200000\nmov ecx, 256\nrep insw\nmov eax, 0x200000\ncall eax\n" for n in (0, 1, 0)
    )
    machine = Machine(RAM, disk, engine=engine)
    machine.load(assemble_text(READ + "start:\ncld\nmov esp, 0x90000\n" + body + END))
    assert machine.run(10_000_000) == 3
    assert machine.debug_output == b"aba"


def test_a_mebibyte_is_read_in_half_a_second(engine: str) -> None:
    """Word by word it takes more than a second, with the quicker engine; the bound is generous for a busy machine."""
    sectors = "mov ebp, {}\n2: mov dx, 0x1f7\n1: in al, dx\ntest al, 8\njz 1b\nmov dx, 0x1f0\nmov ecx, 256\nrep insw\ndec ebp\njnz 2b\n"
    body = "mov edi, 0x200000\n" + "".join(
        f"READ {first}, 128\n" + sectors.format(128) for first in range(0, 2048, 128)
    )
    began = time.process_time()
    machine = kernel(engine, body)
    assert time.process_time() - began < 3
    assert bytes(machine.ram.view[0x200000:0x300000]) == DISK
