"""Modules and command lines of multiboot kernels."""

from __future__ import annotations

import struct

import pytest

from hvproto.errors import BadInput, ImageError
from hvproto.images.assembly import assemble_text
from hvproto.images.memory_map import memory_map
from hvproto.images.multiboot import find_header
from hvproto.images.multiboot_info import BootOptions, Module
from hvproto.machine.machine import Machine

RAM = 4 << 20
KERNEL = assemble_text("start: cli\nhlt\n.space 5000")


def loaded(options: BootOptions) -> bytes:
    machine = Machine(RAM)
    machine.load(KERNEL, options)
    assert machine.processor.gpr(0) == 0x2BADB002
    return bytes(machine.ram.view)


def words(memory: bytes, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}I", memory, at)


def text(memory: bytes, at: int) -> str:
    return memory[at : memory.index(0, at)].decode()


def test_modules_are_behind_the_kernel_on_pages_of_their_own() -> None:
    data = [b"first" * 1000, b"second"]
    memory = loaded(BootOptions("root=ram debug", (Module("a", data[0], "a=1 b=2"), Module("b", data[1]))))
    info = words(memory, 0x9000, 17)
    assert info[0] == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert (text(memory, info[4]), text(memory, info[16]), info[5]) == ("root=ram debug", "hvproto", 2)
    modules = [words(memory, info[6] + 16 * n, 4) for n in range(2)]
    assert [(start, end) for start, end, *_ in modules] == [(0x102000, 0x102000 + 5000), (0x104000, 0x104006)]
    assert [memory[start:end] for start, end, *_ in modules] == data
    assert [text(memory, string) for *_, string, _ in modules] == ["a=1 b=2", ""]


def test_the_memory_map_is_the_firmwares() -> None:
    memory = loaded(BootOptions())
    info = words(memory, 0x9000, 13)
    ranges = [struct.unpack_from("<IQQI", memory, info[12] + 24 * n) for n in range(info[11] // 24)]
    assert [entry[1:] for entry in ranges] == [(r.base, r.length, r.kind) for r in memory_map(RAM)]
    assert (info[1], info[2]) == (639, 3072)


def test_what_cannot_be_handed_over() -> None:
    for bad in ("x" * 5000, "a\0b"):
        with pytest.raises(BadInput, match="command line"):
            BootOptions(bad)
        with pytest.raises(BadInput, match="command line"):
            BootOptions("", (Module("m", b"m", bad),))
    with pytest.raises(BadInput, match="too many"):
        BootOptions("", (Module("m", b"m"),) * 65)
    with pytest.raises(ImageError, match="big: the module needs memory up to"):
        loaded(BootOptions("", (Module("big", bytes(RAM)),)))


@pytest.mark.parametrize(("mode", "good"), [(1, True), (0, False)])
def test_a_kernel_may_wish_for_text_mode(mode: int, good: bool) -> None:
    header = struct.pack("<12I", 0x1BADB002, 7, -(0x1BADB002 + 7) & 0xFFFFFFFF, 0, 0, 0, 0, 0, mode, 80, 25, 0)
    if good:
        assert find_header(header, "k") is not None
    else:
        with pytest.raises(ImageError, match="flag bit 2 demands a video mode"):
            find_header(header, "k")
