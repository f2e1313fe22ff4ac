"""The VGA's registers, and the text on the screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.machine.crtc import Crtc
from hvproto.machine.ports import PortBus
from hvproto.machine.screen import Screen
from tests.support.kernels import booted


class Bench:
    def __init__(self) -> None:
        self.ram = bytearray(1 << 20)
        self.crtc = Crtc()
        self.screen = Screen(memoryview(self.ram), self.crtc)
        self.bus = PortBus()
        self.bus.attach(self.crtc, self.crtc.ports)

    def put(self, cell: int, codes: bytes, attribute: int = 7) -> None:
        for number, code in enumerate(codes, cell):
            self.ram[0xB8000 + 2 * number : 0xB8002 + 2 * number] = bytes((code, attribute))

    def set(self, register: int, value: int) -> None:
        self.bus.write(0x3D4, 2, value << 8 | register)

    def get(self, register: int) -> int:
        self.bus.write(0x3D4, 1, register)
        return self.bus.read(0x3D5, 1)


def test_an_empty_screen() -> None:
    screen = Bench().screen
    assert screen.lines == [""] * 25
    assert screen.text == "\n" * 24
    assert screen.find("x") is None
    assert screen.cursor == (0, 0)


def test_text_and_attributes() -> None:
    bench = Bench()
    bench.put(0, b"Hello  ", 0x1F)
    bench.put(24 * 80 + 78, b"ok")
    assert bench.screen.lines[0] == "Hello"
    assert bench.screen.lines[24] == " " * 78 + "ok"
    assert bench.screen.attributes[0] == bytes([0x1F] * 7 + [0] * 73)
    assert bench.screen.find("llo") == (0, 2)
    assert bench.screen.find("ok") == (24, 78)
    assert bench.screen.text.startswith("Hello\n")


def test_forty_columns() -> None:
    bench = Bench()
    bench.set(0x11, 0x0E)  # the timing can be written
    bench.set(0x01, 0x27)
    bench.put(0, b"left")
    bench.put(40, b"below")
    assert bench.screen.lines[:2] == ["left", "below"] and len(bench.screen.lines) == 25
    assert [len(line) for line in bench.screen.attributes] == [40] * 25
    bench.set(0x0F, 43)
    assert bench.screen.cursor == (1, 3)


def test_monochrome_is_elsewhere() -> None:
    bench = Bench()
    bench.put(0, b"colour")
    bench.bus.write(0x3CE, 2, 0x0A06)
    bench.ram[0xB0000:0xB0002] = b"g\x07"
    assert bench.screen.lines[0] == "g"
    bench.bus.write(0x3C2, 1, 0x66)
    assert bench.bus.read(0x3D5, 1) == 0xFF and bench.bus.read(0x3D4, 1) == 0xFF
    bench.bus.write(0x3B4, 2, 0x030F)
    assert bench.screen.cursor == (0, 3)
    bench.bus.write(0x3D4, 2, 0x050F)  # nobody is there
    assert bench.screen.cursor == (0, 3)


def test_every_code_is_one_character() -> None:
    bench = Bench()
    bench.put(0, bytes(range(256)))
    characters = "".join(line.ljust(80) for line in bench.screen.lines)[:256]
    assert characters[:4] == " ☺☻♥"
    assert characters[0x1E:0x22] == "▲▼ !"
    assert characters[0x7E:0x82] == "~⌂Çü"
    assert characters[0xC9] == "╔"
    assert characters[0xDB] == "█"
    assert characters[0xFE:] == "■ "
    assert len(set(characters)) == 254


def test_the_cursor() -> None:
    bench = Bench()
    bench.set(0x0E, 0x01)
    bench.set(0x0F, 0x92)
    assert bench.screen.cursor == (5, 2)
    bench.set(0x0A, 0x20)
    assert bench.screen.cursor is None
    bench.set(0x0A, 0x0F)  # its first line is below its last
    assert bench.screen.cursor is None
    bench.set(0x0A, 0x0E)
    assert bench.screen.cursor == (5, 2)
    bench.set(0x0E, 0x07)
    bench.set(0x0F, 0xD0)  # line 25
    assert bench.screen.cursor is None
    assert Screen(memoryview(bench.ram)).cursor is None


@pytest.mark.parametrize("start", [0, 80, 0x4000 - 40])
def test_the_picture_begins_at_the_start_address(start: int) -> None:
    bench = Bench()
    bench.set(0x0C, start >> 8)
    bench.set(0x0D, start & 0xFF)
    bench.put(start, b"first")
    bench.put((start + 80) % 0x4000, b"second")
    bench.set(0x0E, start + 81 >> 8)
    bench.set(0x0F, start + 81 & 0xFF)
    assert bench.screen.lines[:2] == ["first", "second"]
    assert bench.screen.cursor == (1, 1)


def test_registers_are_stored() -> None:
    bench = Bench()
    assert (bench.get(0x01), bench.get(0x11)) == (0x4F, 0x8E)
    bench.set(0x09, 0x4E)
    assert bench.get(0x09) == 0x4E
    assert bench.bus.read(0x3D4, 1) == 0x09
    bench.bus.write(0x3C4, 2, 0x0F02)
    bench.bus.write(0x3CE, 2, 0x0506)
    assert (bench.bus.read(0x3C4, 2), bench.bus.read(0x3CE, 2)) == (0x0F02, 0x0506)
    bench.bus.write(0x3C2, 1, 0xE3)
    assert bench.bus.read(0x3CC, 1) == 0xE3


def test_the_protected_registers() -> None:
    bench = Bench()
    bench.set(0x00, 1)
    bench.set(0x07, 0x00)
    assert (bench.get(0x00), bench.get(0x07)) == (0x5F, 0x0F)
    bench.set(0x11, 0x0E)
    bench.set(0x00, 1)
    assert bench.get(0x00) == 1


def test_the_attribute_controllers_one_port() -> None:
    bench = Bench()
    bench.bus.read(0x3DA, 1)
    bench.bus.write(0x3C0, 1, 0x10)
    bench.bus.write(0x3C0, 1, 0x04)  # no blinking
    bench.bus.write(0x3C0, 1, 0x20)
    bench.bus.read(0x3DA, 1)
    bench.bus.write(0x3C0, 1, 0x30)
    assert bench.bus.read(0x3C1, 1) == 0x04
    assert bench.bus.read(0x3C0, 1) == 0x30


def test_the_palette() -> None:
    bench = Bench()
    bench.bus.write(0x3C8, 1, 255)
    for value in (1, 2, 0xFF, 4, 5, 6):
        bench.bus.write(0x3C9, 1, value)
    assert bench.bus.read(0x3C8, 1) == 1  # round and on
    assert bench.crtc.palette[765:] == bytes((1, 2, 63))
    assert bench.crtc.palette[:3] == bytes((4, 5, 6))
    bench.bus.write(0x3C7, 1, 255)
    assert bench.bus.read(0x3C7, 1) == 3
    assert [bench.bus.read(0x3C9, 1) for _ in range(4)] == [1, 2, 63, 4]


def test_retrace_comes_and_goes() -> None:
    bench = Bench()
    seen = [bench.bus.read(0x3DA, 1) for _ in range(6)]
    assert seen == [9, 0, 9, 0, 9, 0]


@given(st.lists(st.tuples(st.sampled_from(Crtc.ports), st.integers(0, 255), st.booleans()), max_size=60))
def test_no_sequence_of_accesses_breaks_it(accesses: list[tuple[int, int, bool]]) -> None:
    bench = Bench()
    for port, value, read in accesses:
        if read:
            assert 0 <= bench.bus.read(port, 1) <= 255
        else:
            bench.bus.write(port, 1, value)
    assert len(bench.screen.lines) == 25
    cursor = bench.screen.cursor
    assert cursor is None or (0 <= cursor[0] < 25 and 0 <= cursor[1] < 80)


def test_a_kernel_writes_and_moves_the_cursor(engine: str) -> None:
    machine = booted(
        engine,
        """
        mov dx, 0x3da
wait:   in al, dx
        test al, 8
        jz wait
        mov edi, 0xb8000 + 160 * 3
        mov esi, text
        mov ah, 0x2e
next:   lodsb
        test al, al
        jz done
        mov [edi], ax
        add edi, 2
        jmp next
done:   mov dx, 0x3d4
        mov ax, 0x000e              ; cursor 245, high and low byte
        out dx, ax
        mov ax, 0xf50f
        out dx, ax
        hlt
text:   .asciz "Grün"
""".replace("ü", "\\201"),
    )
    screen = machine.screen
    assert machine.run(1_000_000) == 0
    assert screen.find("Grün") == (3, 0)
    assert screen.attributes[3][:5] == bytes((0x2E, 0x2E, 0x2E, 0x2E, 0))
    assert screen.cursor == (3, 5)
